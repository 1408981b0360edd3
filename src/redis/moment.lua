-- Reads one stream at one moment: what XINFO STREAM and XINFO GROUPS say, and how many entries stand above the last
-- delivered id of each group that is between the first entry and the last. It counts from the last entry down, so each entry
-- is read once, and another call can go on where this one stopped.
--
-- KEYS[1]  the stream
-- ARGV[1]  the most entries to count; 0 counts none
-- ARGV[2]  the work after which this call stops counting, see below
-- ARGV[3]  a number that differs from collection to collection: which group's oldest entry is looked up first
-- ARGV[4]  the most groups; nil is returned where the stream has more
-- ARGV[5]  bytes of the largest entry that was met before
-- ARGV[6]  how many groups are named next; 0 means all groups
-- then     the names of the groups to count for
-- Where it goes on, also the lowest entry that was counted, how many were, and the ids above which entries are still to be
-- counted.
--
-- Returns length, entries-added, last-generated-id, first id, last id, bytes of these two entries, XINFO GROUPS (nothing where
-- it goes on), a list of {id, entries above it, the first of them, 1 if they are all}, and of the counting: the lowest entry
-- that was counted, how many were, the work it took, and bytes of the largest entry. An id that was not reached has at least as
-- many above it as were counted, and no first of them unless that was looked up.
local call, key = redis.call, KEYS[1]
local max, most, turn = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local names = tonumber(ARGV[6])
local going_on = 7 + names
local info, stream = call('XINFO', 'STREAM', key), {}
for i = 1, #info, 2 do stream[info[i]] = info[i + 1] end
if stream['groups'] > tonumber(ARGV[4]) then return false end

local function size(entry)
  local bytes, texts = 0, entry and entry[2] or {}
  for i = 1, #texts do bytes = bytes + #texts[i] end
  return bytes
end
local first, last = stream['first-entry'], stream['last-entry']
local first_bytes, last_bytes = size(first), size(last)
local largest = math.max(first_bytes, last_bytes)
first, last = first and first[1], last and last[1]

-- Ids as strings that sort as the ids do.
local zeros = string.rep('0', 20)
local function sortable(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return string.sub(zeros, #ms + 1) .. ms .. string.sub(zeros, #seq + 1) .. seq
end

-- The distinct ids between first and last entry, in order.
local positions, ids = {}, {}
local low, high = first and sortable(first), last and sortable(last)
local function add(id)
  local position = first and sortable(id)
  if first and position >= low and position < high and not ids[position] then
    ids[position] = id
    positions[#positions + 1] = position
  end
end
local groups = {}
if ARGV[going_on] then
  for i = going_on + 2, #ARGV do add(ARGV[i]) end
else
  groups = call('XINFO', 'GROUPS', key)
  local wanted = {}
  for i = 7, 6 + names do wanted[ARGV[i]] = true end
  -- The fields stand at the same places in each group.
  local name_at, id_at = 0, 0
  for i, field in ipairs(groups[1] or {}) do
    if i % 2 == 1 and field == 'name' then name_at = i + 1 end
    if i % 2 == 1 and field == 'last-delivered-id' then id_at = i + 1 end
  end
  for i = 1, #groups do
    if names == 0 or wanted[groups[i][name_at]] then add(groups[i][id_at]) end
  end
end
table.sort(positions)

-- The last entry stands above all of them. Work is counted in bytes: an entry takes as long as 600 bytes of it, and a call of
-- XREVRANGE as long as 2,000.
local counts, at, complete = {}, #positions, max > 0
local lowest, total, work = ARGV[going_on] or last, tonumber(ARGV[going_on + 1] or 1), 0
local expected = math.max(largest, tonumber(ARGV[5]))
while at > 0 and complete do
  local id = ids[positions[at]]
  while true do
    -- As many as fit into what is left, and few, because those to come may be larger than all so far.
    local room = math.floor((most - work) / (math.max(expected, largest) + 600))
    local step = math.max(1, math.min(8, max + 1 - total, room))
    local entries = call('XREVRANGE', key, '(' .. lowest, '(' .. id, 'COUNT', step)
    work = work + 2000
    for i = 1, #entries do
      local bytes = size(entries[i])
      work = work + bytes + 600
      if bytes > largest then largest = bytes end
    end
    if #entries > 0 then
      total, lowest = total + #entries, entries[#entries][1]
    end
    if #entries < step then break end
    if total > max or work >= most then complete = false break end
  end
  if complete then
    counts[#counts + 1] = {id, total, lowest, 1}
    at = at - 1
  end
end

-- Of those that were not reached the oldest entry, which gives the age: at least of one, in turn. It was looked up before
-- where the counting goes on. Without the right to XRANGE there is none.
local looked_up = 0
for n = 1, at do
  local id, oldest = ids[positions[(turn + n) % at + 1]], false
  if max > 0 and not ARGV[going_on] and (n == 1 or looked_up < most / 4) then
    local entry = (redis.pcall('XRANGE', key, '(' .. id, '+', 'COUNT', 1))[1]
    looked_up = looked_up + size(entry) + 2600
    oldest = entry and entry[1] or false
  end
  counts[#counts + 1] = {id, total, oldest, 0}
end

return {
  stream['length'], stream['entries-added'] or false, stream['last-generated-id'], first or false, last or false,
  first_bytes + last_bytes, groups, counts, lowest or false, total, work + looked_up, largest
}
