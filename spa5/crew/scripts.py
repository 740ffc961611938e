"""The scripts that run inside Redis, each as one step that no other worker sees half done.

`workers` and `busy` are sorted sets, scored with the time until which a worker is believed to be
so. Redis's clock is the only one that is read. Redis may have lost any key.
"""

from __future__ import annotations

from spa5.crew.wire import MOST_BYTES

# KEYS of all scripts. `asked` has the ids that were shared out, `told` what became of them.
KEYS = ("run", "leader", "workers", "busy", "totals", "requests", "asked", "told")

_GONE_SECONDS = 5  # without a beat for so long, a worker is taken for dead
FORGOTTEN_SECONDS = 24 * 3600  # keys that nobody uses for so long are gone
_MOST_TOTALS = 10_000  # workers
_MOST_HEARD = 10  # batches of outcomes a beat

_COMMON = f"""
local RUN, LEADER, WORKERS, BUSY, TOTALS, REQUESTS, ASKED, TOLD = unpack(KEYS)
local worker, run = ARGV[1], ARGV[2]
local time = tonumber(redis.call('TIME')[1])
local believed, forgotten = time + {_GONE_SECONDS}, {FORGOTTEN_SECONDS}

-- Those whose time is over, and scores that no worker sets.
local function drop_the_dead()
    for _, key in ipairs({{WORKERS, BUSY}}) do
        redis.call('ZREMRANGEBYSCORE', key, '-inf', time)
        redis.call('ZREMRANGEBYSCORE', key, believed + {_GONE_SECONDS}, '+inf')
    end
end

local function short(value)
    return #value <= {MOST_BYTES} and value or ''
end
"""

# ARGV: worker, run, what it crawls. Where nobody is alive a new run begins: what a dead one left
# is in nobody's way.
JOIN = f"""{_COMMON}
drop_the_dead()
if redis.call('ZCARD', WORKERS) == 0 then redis.call('DEL', unpack(KEYS)) end
redis.call('SET', RUN, run, 'NX')
local current = redis.call('GET', RUN)
if string.sub(current, -#ARGV[3]) == ARGV[3] then
    redis.call('ZADD', WORKERS, believed, worker)
end
return short(current)
"""

# ARGV: worker, run, key of how it ended, whether it is busy, listens and leaves (1 or 0), how many
# requests it wants, its totals, a batch of outcomes ('' if there is none), and then pairs: an id
# that is asked for only once (or ''), and the request for it.
BEAT = f"""{_COMMON}
local end_key, is_busy, listens, leaves = ARGV[3], ARGV[4] == '1', ARGV[5] == '1', ARGV[6] == '1'
local wanted, totals, outcomes = tonumber(ARGV[7]), ARGV[8], ARGV[9]

local ended = redis.call('GET', end_key)
if ended then return {{'ended', short(ended)}} end
-- The first write must be one that a full Redis refuses: then the beat has no effect at all.
redis.call('SET', RUN, run, 'NX')
local current = redis.call('GET', RUN)
if current ~= run then return {{'other', short(current)}} end

drop_the_dead()
redis.call('ZADD', WORKERS, believed, worker)
redis.call('HSET', TOTALS, worker, totals)
if outcomes ~= '' then redis.call('RPUSH', TOLD, outcomes) end
local known = 0
for i = 10, #ARGV, 2 do
    if ARGV[i] == '' or redis.call('SADD', ASKED, ARGV[i]) == 1 then
        redis.call('LPUSH', REQUESTS, ARGV[i + 1])
    else
        known = known + 1
    end
end

-- The first worker that finds the leader gone is the next one.
local leader = redis.call('GET', LEADER)
if not leaves and not (leader and redis.call('ZSCORE', WORKERS, leader)) then
    leader = worker
    redis.call('SET', LEADER, leader)
end

-- No worker takes more than its share of what waits, so that all end at about the same time.
local taken = {{}}
local share = math.ceil(redis.call('LLEN', REQUESTS) / redis.call('ZCARD', WORKERS))
for i = 1, math.min(wanted, share) do
    taken[i] = short(redis.call('RPOP', REQUESTS))
end
if is_busy or #taken > 0 then redis.call('ZADD', BUSY, believed, worker)
else redis.call('ZREM', BUSY, worker) end

local heard = {{}}
if listens and leader == worker then
    for i, batch in ipairs(redis.call('LRANGE', TOLD, 0, {_MOST_HEARD - 1})) do
        heard[i] = short(batch)
    end
    redis.call('LTRIM', TOLD, {_MOST_HEARD}, -1)
end
local all = {{}}
if redis.call('HLEN', TOTALS) <= {_MOST_TOTALS} then
    for i, one in ipairs(redis.call('HVALS', TOTALS)) do all[i] = short(one) end
end

for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, forgotten) end
local workers, busy = redis.call('ZCARD', WORKERS), redis.call('ZCARD', BUSY)
if redis.call('ZSCORE', BUSY, worker) then busy = busy - 1 end
if leaves then
    redis.call('ZREM', WORKERS, worker)
    redis.call('ZREM', BUSY, worker)
end
return {{
    'going', leader == worker and 1 or 0, workers, busy,
    redis.call('LLEN', REQUESTS), redis.call('LLEN', TOLD), known, taken, heard, all
}}
"""

# ARGV: worker, run, key of how it ended, how it ended. Only the leader may say so.
END = f"""{_COMMON}
if redis.call('GET', RUN) ~= run or redis.call('GET', LEADER) ~= worker then return 0 end
redis.call('DEL', unpack(KEYS))
redis.call('SET', ARGV[3], ARGV[4], 'EX', forgotten)
return 1
"""
