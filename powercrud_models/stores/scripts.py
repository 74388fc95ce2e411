"""What the Redis store asks the server, each a script that runs without interruption.

Redis does nothing else while a script runs. So a script takes CHUNK objects at most, and more of
them travel as several scripts in one round trip, between which others get their turn.

Their keys are declared, and share a hash tag, so that they are on one node of a Redis Cluster:
``locks`` is a hash, object -> task, with the epoch under the empty name; ``held:<task>`` is the
set of a task's objects; ``tasks`` is a sorted set, task -> time of its last acquisition.
"""

from __future__ import annotations

CHUNK = 2_000
"""How many objects one script takes: one or two milliseconds."""
AT_ONCE = 10_000
"""Up to so many objects, what a task holds is read or released in one round trip."""

# A chunk that is refused leaves a mark, and those behind it in the same round trip write nothing.
# What can be refused is looked at before anything is written, so a single chunk needs no undo.
ACQUIRE = """
local locks, held, tasks, mark = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local task, objects, epoch = ARGV[1], cjson.decode(ARGV[2]), ARGV[3]
local yields, is_part = {}, ARGV[5] == '1'
for place, other in ipairs(cjson.decode(ARGV[4])) do yields[other] = KEYS[4 + place] end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local holders = redis.call('HMGET', locks, unpack(objects))
local others, mine, taken, ages = {}, {}, {}, {}
local wanted, pairs_, is_refused = {}, {}, false
for place, object in ipairs(objects) do
    local holder = holders[place]
    if holder == task then
        mine[#mine + 1] = place
    elseif holder and not yields[holder] then
        if not others[holder] then
            others[holder] = {}
            ages[holder] = now - (redis.call('ZSCORE', tasks, holder) or 0)
            is_refused = true
        end
        table.insert(others[holder], place)
    else
        if holder then taken[holder] = taken[holder] or {}; table.insert(taken[holder], place) end
        wanted[#wanted + 1] = object
        pairs_[#pairs_ + 1] = object
        pairs_[#pairs_ + 1] = task
    end
end
if is_refused or (is_part and redis.call('EXISTS', mark) == 1) then
    if is_part then redis.call('SET', mark, '', 'EX', 60) end
    return cjson.encode({others = others, ages = ages, is_refused = true})
end
for other, places in pairs(taken) do
    for _, place in ipairs(places) do redis.call('SREM', yields[other], objects[place]) end
end
if #wanted > 0 then
    redis.call('HSET', locks, unpack(pairs_))
    redis.call('SADD', held, unpack(wanted))
end
redis.call('ZADD', tasks, now, task)
redis.call('HSETNX', locks, '', epoch)
return cjson.encode({mine = mine, taken = taken, epoch = redis.call('HGET', locks, '')})
"""
RELEASE = """
local locks, held, tasks = KEYS[1], KEYS[2], KEYS[3]
local task, objects, released = ARGV[1], cjson.decode(ARGV[2]), {}
for place, holder in ipairs(redis.call('HMGET', locks, unpack(objects))) do
    if holder == task then released[#released + 1] = objects[place] end
end
if #released > 0 then redis.call('HDEL', locks, unpack(released)) end
redis.call('SREM', held, unpack(objects))
if redis.call('EXISTS', held) == 0 then redis.call('ZREM', tasks, task) end
return #released
"""
# Returns how many objects are left.
RELEASE_SOME = """
local locks, held, tasks = KEYS[1], KEYS[2], KEYS[3]
local task, objects, released = ARGV[1], redis.call('SPOP', KEYS[2], ARGV[2]), {}
if #objects > 0 then
    for place, holder in ipairs(redis.call('HMGET', locks, unpack(objects))) do
        if holder == task then released[#released + 1] = objects[place] end
    end
    if #released > 0 then redis.call('HDEL', locks, unpack(released)) end
end
local left = redis.call('SCARD', held)
if left == 0 then redis.call('ZREM', tasks, task) end
return left
"""
# Gives objects back to the task that they were taken from.
GIVE_BACK = """
local locks, held, tasks, others = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local task, objects, other, given = ARGV[1], cjson.decode(ARGV[2]), ARGV[3], 0
for place, holder in ipairs(redis.call('HMGET', locks, unpack(objects))) do
    if holder == task then
        redis.call('HSET', locks, objects[place], other)
        redis.call('SADD', others, objects[place])
        given = given + 1
    end
end
redis.call('SREM', held, unpack(objects))
if redis.call('EXISTS', held) == 0 then redis.call('ZREM', tasks, task) end
if given > 0 then
    redis.call('ZADD', tasks, 'NX', redis.call('TIME')[1] * 1000, other)
end
return given
"""
HOLDERS = """
local locks, tasks, objects = KEYS[1], KEYS[2], cjson.decode(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local others, ages = {}, {}
for place, holder in ipairs(redis.call('HMGET', locks, unpack(objects))) do
    if holder then
        if not others[holder] then
            others[holder] = {}
            ages[holder] = now - (redis.call('ZSCORE', tasks, holder) or 0)
        end
        table.insert(others[holder], place)
    end
end
return cjson.encode({others = others, ages = ages})
"""
# From the cursor on; small sets come as a whole.
HELD = """
local held, cursor, at_once, chunk = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]
if cursor == '0' and redis.call('SCARD', held) <= at_once then
    return cjson.encode({cursor = '0', objects = redis.call('SMEMBERS', held)})
end
local scanned = redis.call('SSCAN', held, cursor, 'COUNT', chunk)
return cjson.encode({cursor = scanned[1], objects = scanned[2]})
"""
# Where INFO is forbidden, the server has no name.
STATE = """
local info = redis.pcall('INFO', 'server')
local server = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
local epoch = redis.call('HGET', KEYS[1], '') or ''
return cjson.encode({epoch = epoch, server = server, held = redis.call('SCARD', KEYS[2])})
"""
# Tasks that have acquired nothing for so many milliseconds.
IDLE_TASKS = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local most = '(' .. string.format('%.0f', now - ARGV[1])
local tasks = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', most, 'LIMIT', ARGV[2], ARGV[3])
return cjson.encode({tasks = tasks})
"""
