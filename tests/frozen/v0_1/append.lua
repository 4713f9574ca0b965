#!lua
-- KEYS: events, head, live channel
-- ARGV: attempt, first n, last n, seconds to live, trim (0|1), publish the events (0|1), the events
local attempt, first, last = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local head = redis.call('HMGET', KEYS[2], 'attempt', 'n')
local head_attempt, head_n = tonumber(head[1] or 0), tonumber(head[2] or 0)
if head_attempt > attempt then return 1 end
if head_attempt == attempt and head_n >= last then return 0 end
if head_attempt == attempt and head_n ~= first - 1 then return 2 end
if head_attempt < attempt and first ~= 1 then return 2 end

local added
if first == 1 then
    added = redis.pcall('XADD', KEYS[1], ARGV[1] .. '-1', 'd', ARGV[7])
else
    added = redis.pcall('XADD', KEYS[1], 'NOMKSTREAM', ARGV[1] .. '-' .. ARGV[2], 'd', ARGV[7])
end
if not added then return 2 end
if type(added) == 'table' and added.err then
    local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
    if not newest then return added end
    local newest_attempt, newest_n = string.match(newest[1], '(%d+)-(%d+)')
    newest_attempt, newest_n = tonumber(newest_attempt), tonumber(newest_n)
    if newest_attempt > attempt then return 1 end
    if newest_attempt == attempt and newest_n >= first then return 2 end
    return added
end
for i = 8, #ARGV do
    redis.call('XADD', KEYS[1], ARGV[1] .. '-' .. (first + i - 7), 'd', ARGV[i])
end
if ARGV[5] == '1' then redis.call('XTRIM', KEYS[1], 'MINID', ARGV[1] .. '-' .. ARGV[2]) end
redis.call('HSET', KEYS[2], 'attempt', ARGV[1], 'n', ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('EXPIRE', KEYS[2], ARGV[4])

local publication = ARGV[1] .. '-' .. ARGV[2] .. '-' .. ARGV[3]
if ARGV[6] == '1' then publication = publication .. '\n' .. table.concat(ARGV, '\n', 7) end
redis.call('PUBLISH', KEYS[3], publication)
return 0
