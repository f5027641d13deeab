"""The scripts that run within the server, where nothing comes between a look and a write.

Redis takes nothing back when a script fails in the midst. These fail before their first write or
not at all: the server checks memory, disk and role at that write, what is no hash is passed over,
and a script that has written cannot be killed. Behind one that failed, `DELETE` in the same
transaction does nothing, as it does not find the word that `WRITE` leaves last.
"""

from __future__ import annotations

WRITE_FIELDS = 12
"""Arguments of one record, in the order of `_redis_writing.arguments_of`."""

STONE_FIELDS = 6
"""Arguments of one tombstone: owner, its digest, part, kind, id, version."""

_STANDING = """
local function number(value)
  if value and #value <= 16 and string.find(value, '^%d+$') then return tonumber(value) end
  return 0
end
local function standing(key)
  local found = redis.pcall('HMGET', key, 'namespace', 'version', 'deleted', 'owner_id', 'kind',
    'entity_id', 'text_hash', 'model')
  if found.err then return {is_anothers = true} end
  return {namespace = found[1], version = number(found[2]), is_stone = found[3] == '1',
    owner = found[4], kind = found[5], id = found[6], text_hash = found[7], model = found[8],
    is_anothers = found[1] ~= namespace}
end
local function makes_way(key, version, owner, kind, id)
  local old = standing(key)
  if old.is_anothers then return not old.namespace and redis.call('EXISTS', key) == 0 end
  if old.version < version then return true end
  return old.is_stone and not (old.owner == owner and old.kind == kind and old.id == id)
end
"""

WRITE = (
    """
local namespace, vector_bytes, token = ARGV[1], tonumber(ARGV[2]), ARGV[3]
"""
    + _STANDING
    + """
local function is_restamped(key, version, text_hash, model)
  local old = standing(key)
  return not old.is_anothers and not old.is_stone and old.version < version
    and old.text_hash == text_hash and old.model == model
    and redis.call('HSTRLEN', key, 'embedding') == vector_bytes
end
if token ~= '' and not redis.acl_check_cmd('DEL', KEYS[#KEYS]) then
  return redis.error_reply("NOPERM this user has no permissions to run the 'del' command")
end
for record = 1, #KEYS - 1 do
  local key, at = KEYS[record], 3 + (record - 1) * 12
  local owner, owner_digest, part, kind, id = unpack(ARGV, at + 1, at + 5)
  local fingerprint, text_hash, model, version = unpack(ARGV, at + 6, at + 9)
  local text, metadata, embedding = unpack(ARGV, at + 10, at + 12)
  local fields = {'namespace', namespace, 'owner_id', owner, 'owner_digest', owner_digest,
    'part', part, 'kind', kind, 'entity_id', id, 'fingerprint', fingerprint,
    'text_hash', text_hash, 'model', model, 'version', version, 'deleted', '0',
    'text', text, 'metadata', metadata}
  if embedding == '' then
    if is_restamped(key, tonumber(version), text_hash, model) then
      redis.call('HSET', key, unpack(fields))
    end
  elseif makes_way(key, tonumber(version), owner, kind, id) then
    redis.call('HSET', key, 'embedding', embedding, unpack(fields))
  end
end
if token ~= '' then redis.call('SET', KEYS[#KEYS], token) end
return 0
"""
)
"""Writes records where what is stored is older.

Keys: the records', then the transaction's.
Arguments: namespace, a vector's length in bytes, the word to leave (or ''), and for each record
those of `WRITE_FIELDS`; an empty vector keeps the stored one.
"""

DELETE = (
    """
local namespace, token, only_stones = ARGV[1], ARGV[2], ARGV[3] == '1'
"""
    + _STANDING
    + """
if token ~= '' then
  if redis.call('GET', KEYS[#KEYS]) ~= token then
    return redis.error_reply('UNDRIFT the writes before these deletes were refused')
  end
  redis.call('DEL', KEYS[#KEYS])
end
for record = 1, #KEYS - 1 do
  local key, at = KEYS[record], 3 + (record - 1) * 2
  local old = standing(key)
  if not old.is_anothers and old.is_stone == only_stones and old.owner == ARGV[at + 1]
    and old.version == tonumber(ARGV[at + 2]) then
    redis.call('DEL', key)
  end
end
return 0
"""
)
"""Deletes records, or tombstones, that still have an owner and a version.

Keys: the records', then the transaction's.
Arguments: namespace, the word to find (or ''), 1 for tombstones, and for each an owner and a
version.
"""

BURY = (
    """
local namespace = ARGV[1]
"""
    + _STANDING
    + """
if not redis.acl_check_cmd('HDEL', KEYS[1], 'embedding') then
  return redis.error_reply("NOPERM this user has no permissions to run the 'hdel' command")
end
for record = 1, #KEYS do
  local key, at = KEYS[record], 1 + (record - 1) * 6
  local owner, owner_digest, part, kind, id, version = unpack(ARGV, at + 1, at + 6)
  if makes_way(key, tonumber(version), owner, kind, id) then
    redis.call('HSET', key, 'namespace', namespace, 'owner_id', owner,
      'owner_digest', owner_digest, 'part', part, 'kind', kind, 'entity_id', id,
      'version', version, 'deleted', '1')
    redis.call('HDEL', key, 'embedding', 'fingerprint', 'text_hash', 'model', 'text', 'metadata')
  end
end
return 0
"""
)
"""Puts tombstones where what is stored is older.

Keys: the records'. Arguments: namespace, and for each those of `STONE_FIELDS`.
"""

CLAIM = """
local found = redis.call('HMGET', KEYS[1], 'source', 'state_id', 'epoch')
local is_there = redis.call('EXISTS', KEYS[1]) == 1
if is_there ~= (ARGV[4] == '1') then return 0 end
for part = 1, 3 do
  if is_there and (found[part] or '') ~= ARGV[4 + part] then return 0 end
end
redis.call('HSET', KEYS[1], 'source', ARGV[1], 'state_id', ARGV[2], 'epoch', ARGV[3])
return 1
"""
"""Replaces a claim that is still the expected one.

Keys: the claim's. Arguments: source, state, epoch; 1 if one is expected, and its three parts.
"""

ROWS = """
local rows = {}
for position, key in ipairs(KEYS) do
  local type = redis.call('TYPE', key).ok
  local row = false
  if type == 'hash' then
    row = redis.call('HMGET', key, 'namespace', 'owner_id', 'kind', 'entity_id', 'fingerprint',
      'text_hash', 'model', 'version', 'deleted')
    row[10] = redis.call('HSTRLEN', key, 'embedding')
  elseif type ~= 'none' then
    row = {''}
  end
  rows[position] = row
end
return cjson.encode(rows)
"""
"""What stands under keys, as JSON: false for nothing, else a row as `_redis_rows` reads it."""
