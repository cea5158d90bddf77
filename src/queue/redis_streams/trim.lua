-- Lets go of a partition's oldest records. KEYS: its stream and its head; ARGV: the offset below which records may go, how long they
-- are kept all the same in milliseconds, the bytes above which they are not, and how many to look at. Answers how many went.
local head = redis.call('HMGET', KEYS[2], 'first', 'bytes')
local first, bytes = tonumber(head[1] or 0), tonumber(head[2] or 0)
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local gone = 0
local last = string.format('%.0f-0', ARGV[1])
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', last, 'COUNT', ARGV[4])) do
    local record, at_ms = entry[2][2], tonumber(entry[2][4])
    if now_ms - at_ms < tonumber(ARGV[2]) and bytes <= tonumber(ARGV[3]) then
        break
    end
    bytes = bytes - #record - 64
    gone = gone + 1
end
if gone > 0 then
    first = first + gone
    redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f-0', first + 1))
    redis.call('HSET', KEYS[2], 'first', string.format('%.0f', first), 'bytes', string.format('%.0f', bytes))
end
return gone
