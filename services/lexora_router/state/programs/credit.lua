-- credit.py says what this does, and has the same names. A bucket is one key, which is gone some time after it is full.

local EXACT_SHARE, YOUNG_SECONDS, WANT_SECONDS, SLACK = 10, 3, 0.3, 1e-6
local BACK_SECONDS = 1.5
local KEEP_SECONDS = 10  -- after it is full; members repeat what they hold more often

local function held(holder)
  return holder.granted - holder.spent - holder.returned
end

local function cap(bucket)
  local out = 0
  for _, holder in pairs(bucket.holders) do
    out = out + (bucket.rate == 0 and holder.granted - holder.returned or held(holder))
  end
  bucket.level = bucket.rate == 0 and bucket.burst - out or math.min(bucket.level, bucket.burst - out)
end

local function refill(bucket, turn)
  local gone = {}
  for member, holder in pairs(bucket.holders) do
    if not turn.members[member] then
      bucket.level = bucket.level + held(holder)
      gone[#gone + 1] = member
    end
  end
  for _, member in ipairs(gone) do
    bucket.holders[member] = nil
  end
  bucket.level = bucket.level + bucket.rate * math.max(turn.now - bucket.at, 0)
  bucket.at = turn.now
  cap(bucket)
end

local function keep_back(bucket, owed, turn)
  if turn.now < bucket.kept_until then
    bucket.kept = math.max(bucket.kept - owed, 0)
  elseif owed > 0 then
    bucket.kept, bucket.kept_until = owed * (turn.count - 1), turn.now + BACK_SECONDS
  else
    bucket.kept = 0
  end
end

local function hear(bucket, said, turn)
  local holder = bucket.holders[turn.member]
  if holder and holder.life ~= said.life then
    bucket.level = bucket.level + held(holder)
    holder = nil
  end
  if not holder then
    if turn.now - bucket.born < YOUNG_SECONDS then
      bucket.level = math.min(bucket.level, said.level)
    else
      bucket.level = bucket.level - said.lease
    end
    holder = { life = said.life, granted = said.granted, spent = said.spent, returned = said.given, owed = said.paid, want = 0,
      asked = 0, since = 0 }
    bucket.holders[turn.member] = holder
  end
  local owed = said.owed - holder.owed
  bucket.level = bucket.level + said.returned - holder.returned - owed
  keep_back(bucket, owed, turn)
  holder.spent, holder.returned, holder.owed = said.spent, said.returned, said.owed
  bucket.rate, bucket.burst = said.rate, said.burst
  local debt = -held(holder)
  if debt > 0 then
    holder.granted = holder.granted + debt
    bucket.level = bucket.level - debt
  end
  cap(bucket)
  return holder
end

local function spare(bucket, holder, exact, now)
  local level = bucket.level - bucket.kept
  if exact then
    return math.max(level, 0)
  end
  if holder.want == 0 or now - holder.asked > WANT_SECONDS then
    holder.since = now
  end
  local others = {}
  for _, each in pairs(bucket.holders) do
    if each ~= holder and each.want ~= 0 and now - each.asked <= WANT_SECONDS then
      others[#others + 1] = each
    end
  end
  local share, kept = bucket.rate / (#others + 1), 0
  for _, each in ipairs(others) do
    if each.since < holder.since then
      kept = kept + math.min(each.want, share * (now - each.since))
    end
  end
  return math.max(level - kept, 0)
end

local function grant(bucket, holder, asked, now)
  local has, lacking = held(holder), 0
  local granted = math.min(math.max(asked.needed - has, 0), asked.spare)
  if not asked.exact then
    local more = math.min(math.max(asked.target + asked.needed - has - granted, 0), (asked.spare - granted) / 2)
    granted = granted + (bucket.rate == 0 and math.floor(more) or more)
    lacking = math.max(asked.target + asked.needed - has - granted, 0) + asked.missed
  end
  if granted > 0 then
    holder.granted = holder.granted + granted
    bucket.level = bucket.level - granted
    holder.since = now
  end
  holder.want, holder.asked = lacking, now
end

local function read(packed)
  local flat = cmsgpack.unpack(packed)
  local bucket = { rate = flat[1], burst = flat[2], level = flat[3], at = flat[4], born = flat[5], kept = flat[6],
    kept_until = flat[7], holders = {} }
  for _, each in ipairs(flat[8]) do
    bucket.holders[each[1]] = { life = each[2], granted = each[3], spent = each[4], returned = each[5], owed = each[6],
      want = each[7], asked = each[8], since = each[9] }
  end
  return bucket
end

local function write(bucket)
  local holders = {}
  for member, each in pairs(bucket.holders) do
    holders[#holders + 1] = { member, each.life, each.granted, each.spent, each.returned, each.owed, each.want, each.asked,
      each.since }
  end
  return cmsgpack.pack({ bucket.rate, bucket.burst, bucket.level, bucket.at, bucket.born, bucket.kept, bucket.kept_until,
    holders })
end

local function keep(bucket, turn)
  local full = bucket.rate == 0 and 0 or math.max(bucket.burst - bucket.level, 0) / bucket.rate
  return math.min(math.ceil(KEEP_SECONDS + full), turn.keep)
end

return function(request, turn)
  local found, gives = {}, {}
  turn.count = 0
  for _ in pairs(turn.members) do
    turn.count = turn.count + 1
  end
  for place, flat in ipairs(request[1]) do
    local said = { life = flat[2], rate = flat[3], burst = flat[4], granted = flat[5], spent = flat[6], returned = flat[7],
      given = flat[8], owed = flat[9], paid = flat[10], target = flat[11], level = flat[12], lease = flat[13] }
    local key = turn.key(flat[1])
    local packed = turn.call('GET', key)
    local bucket = packed and read(packed) or { rate = said.rate, burst = said.burst, level = math.min(said.level, said.burst),
      at = turn.now, born = turn.now, kept = 0, kept_until = 0, holders = {} }
    refill(bucket, turn)
    local holder, exact = hear(bucket, said, turn), said.burst < EXACT_SHARE * turn.count
    found[place] = { key = key, bucket = bucket, holder = holder, exact = exact, needed = 0, missed = 0, target = said.target,
      spare = spare(bucket, holder, exact, turn.now) }
  end
  for _, call in ipairs(request[2]) do
    local fits = true
    for _, need in ipairs(call) do
      local asked = found[need[1] + 1]
      fits = fits and asked.needed + need[2] <= held(asked.holder) + asked.spare + SLACK
    end
    local kind = fits and 'needed' or 'missed'
    for _, need in ipairs(call) do
      local asked = found[need[1] + 1]
      asked[kind] = asked[kind] + need[2]
    end
  end
  for place, asked in ipairs(found) do
    grant(asked.bucket, asked.holder, asked, turn.now)
    turn.call('SET', asked.key, write(asked.bucket), 'EX', keep(asked.bucket, turn))
    gives[place] = { asked.holder.granted, asked.bucket.level }
  end
  return { gives, turn.count }
end
