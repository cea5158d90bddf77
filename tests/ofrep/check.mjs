// Cartwright asked by OpenFeature's own SDKs. Prints what was evaluated, and ends with an error where anything is not as it should be.
//
// CARTWRIGHT_URL, CARTWRIGHT_PUBLIC_KEY and CARTWRIGHT_SERVER_KEY name a running service under the ruleset of tests/it/e2e/ofrep.rs.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { OFREPProvider } from '@openfeature/ofrep-provider';
import { OFREPWebProvider } from '@openfeature/ofrep-web-provider';
import { OpenFeature as Server } from '@openfeature/server-sdk';
import { OpenFeature as Web, ProviderEvents } from '@openfeature/web-sdk';

const url = process.env.CARTWRIGHT_URL;
const publicKey = process.env.CARTWRIGHT_PUBLIC_KEY;
const serverKey = process.env.CARTWRIGHT_SERVER_KEY;
const none = { headline: 'default' };
const guests = Array.from({ length: 8 }, (_, number) => `guest-${number}`);
const cart = '85123A:1:2.55';

function told(who, flag, details) {
  const { value, variant, reason, errorCode } = details;
  console.log(`${who}: ${flag} = ${JSON.stringify(value)} (${errorCode ?? `${variant}, ${reason}`})`);
  return details;
}

/** The same question, asked of GET /personalize. */
async function personalize(guest) {
  const query = new URLSearchParams({ anonymous_id: guest, cart, placements: 'promo' });
  const answer = await fetch(`${url}/personalize?${query}`, { headers: { Authorization: `Bearer ${publicKey}` } });
  assert.equal(answer.status, 200);
  return (await answer.json()).placements.promo;
}

function assertPromo(details, expected) {
  assert.equal(details.reason, 'SPLIT');
  assert.equal(details.variant, expected.variant);
  assert.deepEqual(details.value, expected.payload);
  assert.equal(details.flagMetadata.cartwright_reason, 'split');
  assert.equal(details.flagMetadata.experience, 'nudge');
  assert.match(details.flagMetadata.decision_id, /^[0-9a-f-]{36}$/);
}

/** Waits until `condition` holds. */
async function until(what, condition) {
  for (let round = 0; round < 600; round += 1) {
    if (condition()) return;
    await sleep(50);
  }
  assert.fail(`waited in vain: ${what}`);
}

async function asABackEnd() {
  const provider = (key) => new OFREPProvider({ baseUrl: url, headers: [['Authorization', `Bearer ${key}`]] });
  await Server.setProviderAndWait(provider(serverKey));
  const client = Server.getClient();
  const ask = async (kind, flag, fallback, context) =>
    told('server', flag, await client[`get${kind}Details`](flag, fallback, context));

  const seen = new Set();
  for (const guest of guests) {
    const expected = await personalize(guest);
    assertPromo(await ask('Object', 'promo', none, { targetingKey: guest, cart, plan: 'gold' }), expected);
    seen.add(expected.variant);
  }
  assert.deepEqual([...seen].sort(), ['a', 'b'], 'both variants were served');

  const fallback = await ask('Object', 'promo', none, { targetingKey: 'guest-0' });
  assert.deepEqual(fallback.value, { headline: 'none' });
  assert.deepEqual([fallback.variant, fallback.reason], ['fallback', 'STATIC']);
  assert.equal(fallback.flagMetadata.cartwright_reason, 'no_match');
  const abroad = await ask('Object', 'banner', none, { country: 'FR' });
  assert.deepEqual([abroad.variant, abroad.reason, abroad.value.headline], ['abroad', 'TARGETING_MATCH', 'bonjour']);
  assert.equal((await ask('Boolean', 'switch', false, {})).value, true);
  assert.equal((await ask('Number', 'count', 0, {})).value, 3);
  assert.equal((await ask('String', 'text', '', {})).value, 'plain');

  // A server key speaks for any user, without a token.
  assert.equal((await ask('Object', 'promo', none, { userId: 'u1', cart })).reason, 'SPLIT');

  const wrong = async (kind, flag, value, context, code) => {
    const details = await ask(kind, flag, value, context);
    assert.equal(details.errorCode, code);
    assert.equal(details.value, value);
  };
  await wrong('Object', 'payment_methods', none, {}, 'FLAG_NOT_FOUND');
  await wrong('Object', 'nothing', none, {}, 'FLAG_NOT_FOUND');
  await wrong('Boolean', 'text', false, {}, 'TYPE_MISMATCH');
  await wrong('Object', 'promo', none, { country: 'France' }, 'INVALID_CONTEXT');
  await wrong('Object', 'promo', none, { cart: true }, 'INVALID_CONTEXT');
  await Server.setProviderAndWait(provider('nobody'));
  await wrong('Object', 'promo', none, {}, 'GENERAL');
  await Server.setProviderAndWait(provider(publicKey));
  await wrong('Object', 'promo', none, { userId: 'u1' }, 'GENERAL');
  await Server.close();
}

async function asAPage() {
  const calls = [];
  const provider = new OFREPWebProvider({
    baseUrl: url,
    headers: [['X-API-Key', publicKey]],
    cacheMode: 'disabled',
    pollInterval: 100,
    fetchImplementation: async (request, init) => {
      const asked = request.headers.get('if-none-match');
      const response = await fetch(request, init);
      calls.push({ asked, status: response.status, tag: response.headers.get('etag') });
      return response;
    },
  });
  const changed = [];
  Web.addHandler(ProviderEvents.ConfigurationChanged, (event) => changed.push(...event.flagsChanged));
  const guest = guests[0];
  await Web.setContext({ targetingKey: guest, cart });
  await Web.setProviderAndWait(provider);
  const client = Web.getClient();
  const promo = () => told('web', 'promo', client.getObjectDetails('promo', none));

  assertPromo(promo(), await personalize(guest));
  told('web', 'switch', client.getBooleanDetails('switch', false));
  assert.equal(client.getBooleanValue('switch', false), true);
  assert.equal(client.getObjectDetails('payment_methods', none).errorCode, 'FLAG_NOT_FOUND');

  // Nothing changes: from some look on, all are answered by a 304.
  await until('three 304s in a row', () => calls.slice(-3).filter((call) => call.status === 304).length === 3);
  const last = calls.at(-1);
  assert.equal(calls[0].asked, null);
  assert.match(last.tag, /^"[\w-]{43}"$/);
  assert.equal(last.asked, last.tag);
  assertPromo(promo(), await personalize(guest));

  // The shopper does something, and the page is told without asking.
  changed.length = 0;
  const event = { event: 'Product Added', event_id: 'e1', anonymous_id: guest,
    properties: { product_id: '22423', price: 12.75, quantity: 1, currency: 'GBP' } };
  const headers = { Authorization: `Bearer ${publicKey}`, 'Content-Type': 'application/json' };
  const taken = await fetch(`${url}/events`, { method: 'POST', headers, body: JSON.stringify(event) });
  assert.equal(taken.status, 202);
  await until('the flags to change', () => changed.includes('banner'));
  const banner = told('web', 'banner', client.getObjectDetails('banner', none));
  assert.deepEqual([banner.variant, banner.reason, banner.value.headline], ['waiting', 'TARGETING_MATCH', 'still there']);

  // Another shopper.
  await Web.setContext({ targetingKey: guests[1], cart });
  assertPromo(promo(), await personalize(guests[1]));
  assert.equal(client.getObjectDetails('banner', none).variant, 'fallback');
  // The same shopper with another cart: the tag at hand is of no use.
  await Web.setContext({ targetingKey: guests[1] });
  assert.equal(promo().variant, 'fallback');
  await Web.close();

  const refused = new OFREPWebProvider({ baseUrl: url, headers: [['X-API-Key', 'nobody']], cacheMode: 'disabled' });
  await assert.rejects(Web.setProviderAndWait(refused));
  assert.equal(Web.getClient().getBooleanDetails('switch', false).errorCode, 'PROVIDER_FATAL');
  await Web.close();
  const statuses = calls.map((call) => call.status);
  console.log(`web: ${statuses.length} calls, ${statuses.filter((status) => status === 304).length} of them answered by a 304`);
}

await asABackEnd();
await asAPage();
console.log('all as it should be');
