-- One write on a stream, and the truth about the stream after it, at one moment.
--
-- KEYS[1]  the stream
-- KEYS[2]  counts writes
-- KEYS[3]  the truth after each of the last writes, newest first
-- KEYS[4]  how many entries each group lost so far
-- ARGV     the write, its group, its count, and the bytes of an entry that is added
--
-- What waits is counted by reading it. What a group lost is what stopped waiting for it by a write that removes entries.
local stream, writes, truths, lost = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local NAMES = {'a', 'b', 'c'}

local function groups()
  local found = {}
  if redis.call('EXISTS', stream) == 0 then return found end
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local fields = {}
    for i = 1, #group, 2 do fields[group[i]] = group[i + 1] end
    local entries = redis.call('XRANGE', stream, '(' .. fields['last-delivered-id'], '+')
    fields.waits = #entries
    fields.oldest = entries[1] and entries[1][1] or '-'
    found[fields.name] = fields
  end
  return found
end

-- The id of the entry at this place, or of the last one before it.
local function at(place)
  if place == 0 then return false end
  local entries = redis.call('XRANGE', stream, '-', '+', 'COUNT', place)
  return entries[#entries] and entries[#entries][1]
end

local function create(from)
  redis.call('DEL', lost)
  for _, name in ipairs(NAMES) do redis.call('XGROUP', 'CREATE', stream, name, from, 'MKSTREAM') end
end

local write, name, count = ARGV[1], ARGV[2], tonumber(ARGV[3])
local before = groups()
local group = before[name]

if write == 'add' then
  local payload = string.rep('1', tonumber(ARGV[4]))
  for _ = 1, count do redis.call('XADD', stream, '*', 'detector', payload) end
elseif write == 'read' and group then
  redis.call('XREADGROUP', 'GROUP', name, 'worker', 'COUNT', count, 'STREAMS', stream, '>')
elseif write == 'acknowledge' and group then
  for _, entry in ipairs(redis.call('XPENDING', stream, name, '-', '+', count)) do
    redis.call('XACK', stream, name, entry[1])
  end
elseif write == 'trim' then
  redis.call('XTRIM', stream, 'MAXLEN', count)
elseif write == 'delete' then
  local id = at(count)
  if id then redis.call('XDEL', stream, id) end
elseif write == 'set-id' and group then
  redis.call('XGROUP', 'SETID', stream, name, count == 0 and '$' or at(count) or '0')
elseif write == 'destroy' and group then
  redis.call('XGROUP', 'DESTROY', stream, name)
  redis.call('HDEL', lost, name)
elseif write == 'create' and not group then
  redis.call('XGROUP', 'CREATE', stream, name, at(count) or '0', 'MKSTREAM')
elseif write == 'drop' then
  redis.call('DEL', stream, lost)
elseif write == 'create-anew' then
  redis.call('DEL', stream)
  create('$')
end

local after = groups()
if write == 'trim' or write == 'delete' then
  for name, fields in pairs(before) do redis.call('HINCRBY', lost, name, fields.waits - after[name].waits) end
end

local number = redis.call('INCR', writes)
local exists = redis.call('EXISTS', stream) == 1
local truth = {number, exists and redis.call('XLEN', stream) or '-', exists and at(1) or '-'}
for name, fields in pairs(after) do
  local gone = redis.call('HGET', lost, name) or '0'
  truth[#truth + 1] = table.concat({name, fields.waits, gone, fields.oldest, fields.pending}, ' ')
end
redis.call('LPUSH', truths, table.concat(truth, '\n'))
redis.call('LTRIM', truths, 0, 49999)
return number
