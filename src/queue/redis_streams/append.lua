-- Appends records to a partition, all or none. KEYS: its stream and its head; ARGV: the log's id, the most bytes the partition may take, the
-- least offset that is free as far as the writer knows, then the records. Answers {outcome, number}.
local head = redis.call('HMGET', KEYS[2], 'log', 'next', 'bytes')
local next, bytes = tonumber(head[2] or 0), tonumber(head[3] or 0)
if head[1] and head[1] ~= ARGV[1] then
    return {'OTHER', next}
end
-- The stream without its head, or the head without its stream: one of them was evicted or deleted.
if (next > 0) ~= (redis.call('EXISTS', KEYS[1]) == 1) then
    return {'LOST', next}
end
if next < tonumber(ARGV[3]) then
    return {'OLDER', next}
end
local size = 0
for index = 4, #ARGV do
    size = size + #ARGV[index] + 64
end
if bytes + size > tonumber(ARGV[2]) then
    return {'FULL', bytes}
end
local time = redis.call('TIME')
local now_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
for index = 4, #ARGV do
    redis.call('XADD', KEYS[1], string.format('%.0f-0', next + index - 3), 'r', ARGV[index], 't', now_ms)
end
redis.call('HSET', KEYS[2], 'log', ARGV[1],
    'next', string.format('%.0f', next + #ARGV - 3), 'bytes', string.format('%.0f', bytes + size))
return {'OK', next}
