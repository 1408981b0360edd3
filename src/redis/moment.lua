-- Reads one stream at one moment: what XINFO STREAM and XINFO GROUPS say, and how many entries stand above the last
-- delivered id of each group that is between the first entry and the last.
--
-- KEYS[1]  the stream
-- ARGV[1]  the most entries to count; 0 counts none
-- ARGV[2]  bytes of entries after which counting stops
-- ARGV[3]  a number that differs from collection to collection: which group's oldest entry is looked up first
-- ARGV[4]  the most groups; nil is returned where the stream has more
--
-- Returns length, entries-added, last-generated-id, first id, last id, bytes of these two entries, XINFO GROUPS, and a list
-- of {id, entries above it, the first of them, 1 if they are all}. An id that is missing there was not reached.
local key, max, most, turn = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local info, stream = redis.call('XINFO', 'STREAM', key), {}
for i = 1, #info, 2 do stream[info[i]] = info[i + 1] end
if stream['groups'] > tonumber(ARGV[4]) then return false end
local groups = redis.call('XINFO', 'GROUPS', key)
local first = stream['first-entry'] and stream['first-entry'][1] or false
local last = stream['last-entry'] and stream['last-entry'][1] or false

-- Ids as strings that sort as the ids do.
local zeros = string.rep('0', 20)
local function sortable(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return string.sub(zeros, #ms + 1) .. ms .. string.sub(zeros, #seq + 1) .. seq
end

-- The distinct last delivered ids between first and last entry, in order.
local positions, ids = {}, {}
if first then
  local low, high = sortable(first), sortable(last)
  for _, group in ipairs(groups) do
    local id
    for i = 1, #group, 2 do
      if group[i] == 'last-delivered-id' then id = group[i + 1] end
    end
    local position = sortable(id)
    if position >= low and position < high and not ids[position] then
      ids[position] = id
      positions[#positions + 1] = position
    end
  end
  table.sort(positions)
end

local function size(entry)
  local bytes = 0
  for _, text in ipairs(entry and entry[2] or {}) do bytes = bytes + #text end
  return bytes
end

local bytes = 0
local function read(from, to, count)
  local entries = redis.call('XRANGE', key, from, to, 'COUNT', count)
  for _, entry in ipairs(entries) do bytes = bytes + size(entry) end
  return entries
end

-- Entries that were not seen yet may be as large as the first or the last.
local first_bytes, last_bytes = size(stream['first-entry']), size(stream['last-entry'])
local expected = math.max(first_bytes, last_bytes)

-- From the newest position to the oldest, so that the entries between two of them are counted once.
local counts, total, complete, oldest, at = {}, 0, max > 0, false, #positions
while at > 0 and complete do
  local from, above = '(' .. ids[positions[at]], ids[positions[at + 1]]
  local step, segment_oldest = 1, false
  while true do
    local entries = read(from, above or '+', step)
    total = total + #entries
    segment_oldest = segment_oldest or (entries[1] and entries[1][1]) or false
    if #entries < step then break end
    if total > max or bytes >= most then complete = false break end
    from = '(' .. entries[#entries][1]
    -- Twice as many as before, but no more than fit into what is left by the size that is expected, and few, because
    -- those in between may be larger than all that.
    local room = math.floor((most - bytes) / (math.max(bytes / total, expected) + 1))
    step = math.max(1, math.min(step * 2, 8, max + 1 - total, room))
  end
  oldest = segment_oldest or oldest
  counts[#counts + 1] = {ids[positions[at]], total, oldest, complete and 1 or 0}
  at = at - 1
end

-- Of those that were not reached at least the oldest entry, which gives the age: at least of one, in turn.
for n = 1, at do
  if n > 1 and bytes >= most then break end
  local id = ids[positions[(turn + n) % at + 1]]
  local entry = read('(' .. id, '+', 1)[1]
  counts[#counts + 1] = {id, math.max(total, 1), entry and entry[1] or false, 0}
end

return {
  stream['length'], stream['entries-added'] or false, stream['last-generated-id'], first, last, first_bytes + last_bytes,
  groups, counts
}
