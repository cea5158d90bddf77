-- Stores each value unless one of the same epoch with at least its number is there. KEYS: profiles of one slot; ARGV: for each
-- its value (see value.rs) and its time to live in milliseconds. Where one more of each follows, they are a partition's mark and what it is
-- set to; the answer is what it was.
--
-- Bytes are compared one by one: numbers in here are doubles, which 64 bits don't fit, and how strings compare depends
-- on the server's locale.
local function is_as_new(have, new)
    for at = 10, 17 do
        local a, b = have:byte(at), new:byte(at)
        if a ~= b then
            return a > b
        end
    end
    return true
end

for index = 1, math.floor(#ARGV / 2) do
    local key = KEYS[index]
    local new = ARGV[2 * index - 1]
    local have = redis.call('GETRANGE', key, 0, 16)
    local comparable = #have == 17 and have:sub(1, 9) == new:sub(1, 9)
    if not (comparable and is_as_new(have, new)) then
        redis.call('SET', key, new, 'PX', ARGV[2 * index])
    end
end
if #ARGV % 2 == 1 then
    return redis.call('SET', KEYS[#KEYS], ARGV[#ARGV], 'GET')
end
