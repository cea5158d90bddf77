-- Renews, gives back and takes the leases of one worker. KEYS: the workers (sorted set: worker -> when it ends), the leases (hash:
-- partition -> "token worker ends"); ARGV: the worker, the partitions, how long a lease lasts in ms (0 gives everything back).
-- Answers partition, token, partition, token ...
local worker, partitions, lasts_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = string.format('%.0f', now_ms + lasts_ms)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now_ms))
if lasts_ms > 0 then
    redis.call('ZADD', KEYS[1], ends, worker)
else
    redis.call('ZREM', KEYS[1], worker)
end
local workers = math.max(redis.call('ZCARD', KEYS[1]), 1)
local share = lasts_ms > 0 and math.ceil(partitions / workers) or 0

local mine, free = {}, {}
for partition = 0, partitions - 1 do
    local token, holder, until_ms = string.match(redis.call('HGET', KEYS[2], partition) or '', '^(%d+) (%S+) (%d+)$')
    if holder == worker then
        mine[#mine + 1] = {partition, token}
    elseif not holder or tonumber(until_ms) <= now_ms then
        free[#free + 1] = {partition, string.format('%.0f', tonumber(token or 0) + 1)}
    end
end
-- What is beyond the share is free for others from now on. Its token stays, for the next one to grow from.
while #mine > share do
    local lease = table.remove(mine)
    redis.call('HSET', KEYS[2], lease[1], lease[2] .. ' ' .. worker .. ' 0')
end
for _, lease in ipairs(free) do
    if #mine >= share then
        break
    end
    mine[#mine + 1] = lease
end
local held = {}
for _, lease in ipairs(mine) do
    redis.call('HSET', KEYS[2], lease[1], lease[2] .. ' ' .. worker .. ' ' .. ends)
    held[#held + 1] = lease[1]
    held[#held + 1] = tonumber(lease[2])
end
return held
