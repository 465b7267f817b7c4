/*
 * scripts - each one atomic step, on the server's own clock.
 *
 *   <p>troupe:workers:<character>     set of the numbers that were taken
 *   <p>troupe:worker:<character>:<n>  the record, text; its first line: time of its registration, when it ends, its TTL
 *   <p>troupe:gateways                sorted set: gateway -> when it ends, milliseconds (and thousandths)
 *   <p>troupe:conn:<chat>             the same for a chat's gateways; the whole goes with its last
 *   <p>troupe:context:<chat>          last turn (16 bytes), change (8), sealed bytes; with a TTL
 *   <p>troupe:place:<chat>            first choice, newline, queue; with a TTL
 *   <p>troupe:rate:<key>              GCRA's theoretical arrival time, microseconds (domain/ratelimit.h)
 *
 * All of it may be lost at any time: a record that is gone is registered anew by its owner.
 *
 * A Redis at its memory limit.  What is essential (workers, gateways, connections, places), and the rates, which are small
 * and short-lived, are written all the same: Redis refuses a script's first write alone, and only one that takes memory, so
 * each of them begins with one that takes none (Redis 6.2 and 7 alike).  Contexts are refused (room.c).
 * A Redis that evicts: the records of workers and gateways have no TTL, but their end inside, so that a volatile-* policy can't
 * take them; who reads them removes those that have ended, and each renewal looks at one other, by chance.
 */
#include "adapter/redis/impl.h"

#define NOW_MS "local t=redis.call('TIME') local now=t[1]*1000+math.floor(t[2]/1000) "
/*
 * A worker's record: living, or of an older version, which ends by its TTL.  One that ends later than two TTLs from now was
 * written by another clock (a promoted replica's is behind), and nobody has renewed it since.
 */
#define LIVES                                                                                                          \
    "local function lives(rec,now) "                                                                                   \
    "  local e,ttl=string.match(rec,'^%d+ (%d+) ?(%d*)\\n') "                                                          \
    "  e,ttl=tonumber(e),tonumber(ttl) "                                                                               \
    "  return not e or e>now and (not ttl or e<=now+2*ttl) "                                                           \
    "end "
#define SINCE "local function sinceof(rec,now) return math.min(tonumber(string.match(rec,'^%d+')) or now,now) end "
#define RECORD_ID "local function idof(rec) return string.match(rec,'\\nid=([^\\n]*)') end "

const char *const rr_scripts[RR_SCRIPTS] = {
    /* KEYS set; ARGV record's prefix, id, wish, ttl, record, age -> number */
    [RR_WORKER_REGISTER] =
        (NOW_MS RECORD_ID SINCE LIVES
         "local n,since,taken=0,now,{} "
         "for _,m in ipairs(redis.call('SMEMBERS',KEYS[1])) do "
         "  local rec=redis.pcall('GET',ARGV[1]..m) "
         "  if type(rec)=='string' and not lives(rec,now) then redis.call('DEL',ARGV[1]..m) "
         "redis.call('SREM',KEYS[1],m) "
         "  elseif type(rec)=='string' and idof(rec)==ARGV[2] then n=tonumber(m) or 0 since=sinceof(rec,now) end "
         "end "
         "local wish=tonumber(ARGV[3]) "
         "local function free(m) "
         "  local rec=redis.pcall('GET',ARGV[1]..m) "
         "  return not rec or type(rec)=='string' and (not lives(rec,now) or idof(rec)==ARGV[2]) "
         "end "
         "if n==0 and wish>0 and free(wish) then n=wish end "
         "if n==0 then n=1 while not free(n) do n=n+1 end end "
         "if n==wish then since=math.min(since,now-ARGV[6]) end "
         "redis.call('DEL',ARGV[1]..n) "
         "redis.call('SET',ARGV[1]..n,string.format('%.0f %.0f %d\\n',since,now+ARGV[4],ARGV[4])..ARGV[5]) "
         "redis.call('SADD',KEYS[1],n) "
         "return n"),
    /* KEYS record, set; ARGV id, ttl, record, number, age, record's prefix -> 1, or 0: gone or another's */
    [RR_WORKER_REFRESH] =
        (NOW_MS RECORD_ID SINCE LIVES
         "local m=redis.call('SRANDMEMBER',KEYS[2]) "
         "local other=m and redis.pcall('GET',ARGV[6]..m) "
         "if type(other)=='string' and not lives(other,now) then "
         "  redis.call('DEL',ARGV[6]..m) redis.call('SREM',KEYS[2],m) "
         "end "
         "local rec=redis.call('GET',KEYS[1]) "
         "if not rec or not lives(rec,now) or idof(rec)~=ARGV[1] then return 0 end "
         "local since=math.min(sinceof(rec,now),now-ARGV[5]) "
         "redis.call('DEL',KEYS[1]) "
         "redis.call('SET',KEYS[1],string.format('%.0f %.0f %d\\n',since,now+ARGV[2],ARGV[2])..ARGV[3]) "
         "redis.call('SADD',KEYS[2],ARGV[4]) "
         "return 1"),
    /* KEYS record, set; ARGV id, number */
    [RR_WORKER_REMOVE] =
        (RECORD_ID
         "local rec=redis.call('GET',KEYS[1]) "
         "if rec and idof(rec)==ARGV[1] then redis.call('DEL',KEYS[1]) redis.call('SREM',KEYS[2],ARGV[2]) end "
         "return 1"),
    /* KEYS set; ARGV record's prefix -> now, number, record, number, record, … */
    [RR_WORKERS] = (NOW_MS LIVES "local out={string.format('%.0f',now)} "
                                 "for _,m in ipairs(redis.call('SMEMBERS',KEYS[1])) do "
                                 "  local rec=redis.pcall('GET',ARGV[1]..m) "
                                 "  if type(rec)=='string' and lives(rec,now) then out[#out+1]=m out[#out+1]=rec "
                                 "  else "
                                 "    if type(rec)=='string' then redis.call('DEL',ARGV[1]..m) end "
                                 "    redis.call('SREM',KEYS[1],m) "
                                 "  end "
                                 "end "
                                 "return out"),
    /* KEYS sorted set; ARGV name, ttl, "stays": the key has no TTL -> 1 or 2 (it is new), when it ends: to the microsecond, so that no two puts have one end */
    [RR_NAME_PUT] = ("local t=redis.call('TIME') local now=t[1]*1000+t[2]/1000 "
                     "redis.call('ZREMRANGEBYSCORE',KEYS[1],'-inf',string.format('%.3f',now)) "
                     "local known=redis.call('ZSCORE',KEYS[1],ARGV[1]) "
                     "local ends=string.format('%.3f',now+ARGV[2]) "
                     "redis.call('ZADD',KEYS[1],ends,ARGV[1]) "
                     "if ARGV[3]=='stays' then redis.call('PERSIST',KEYS[1]) "
                     "elseif redis.call('PTTL',KEYS[1])<tonumber(ARGV[2]) then "
                     "  redis.call('PEXPIRE',KEYS[1],ARGV[2]) "
                     "end "
                     "return {known and 1 or 2,ends}"),
    /* KEYS sorted set; ARGV name, end: not where it ends later, for then it was put again */
    [RR_NAME_REMOVE] = ("local ends=redis.call('ZSCORE',KEYS[1],ARGV[1]) "
                        "if ends and tonumber(ends)<=tonumber(ARGV[2]) then redis.call('ZREM',KEYS[1],ARGV[1]) end "
                        "return 1"),
    /* KEYS sorted set -> names */
    [RR_NAMES] = (NOW_MS "return redis.call('ZRANGEBYSCORE',KEYS[1],string.format('(%.0f',now),'+inf')"),
    /* KEYS key; ARGV first, queue, stale, was, ttl -> queue, first, and "new" if it is */
    [RR_PLACE] = ("local rec=redis.call('GET',KEYS[1]) "
                  "local first,queue=string.match(rec or '','^([^\\n]*)\\n(.+)$') "
                  "if first and queue~=ARGV[3] and (first==ARGV[1] or first~=ARGV[4]) then "
                  "redis.call('PEXPIRE',KEYS[1],ARGV[5]) return {queue,first} end "
                  "redis.call('DEL',KEYS[1]) "
                  "redis.call('SET',KEYS[1],ARGV[1]..'\\n'..ARGV[2],'PX',ARGV[5]) "
                  "return {ARGV[2],ARGV[1],'new'}"),
    /* KEYS key; ARGV interval, burst -> milliseconds to wait, 0: taken.  All times in microseconds */
    [RR_RATE] = ("local t=redis.call('TIME') local now=t[1]*1000000+t[2] "
                 "local interval,burst=tonumber(ARGV[1]),tonumber(ARGV[2]) "
                 "local tolerance=(burst-1)*interval "
                 "local tat=tonumber(redis.call('GET',KEYS[1]) or '0') "
                 "if tat<now then tat=now end "
                 "if tat-now>=burst*interval then tat=now+burst*interval end "
                 "if tat-now>tolerance then return math.floor((tat-now-tolerance+999)/1000) end "
                 "tat=tat+interval "
                 "redis.call('DEL',KEYS[1]) "
                 "redis.call('SET',KEYS[1],string.format('%.0f',tat),'PX',math.floor((tat-now)/1000)+1000) "
                 "return 0"),
    /* ARGV cursor, pattern -> the next cursor, how many were removed: the half of those found that ends sooner */
    [RR_GIVE_UP] = ("local cursor,found=ARGV[1],{} "
                    "for i=1,8 do "
                    "  local some=redis.call('SCAN',cursor,'MATCH',ARGV[2],'COUNT',1000) "
                    "  cursor=some[1] "
                    "  for _,key in ipairs(some[2]) do found[#found+1]={redis.call('PTTL',key),key} end "
                    "  if cursor=='0' or #found>=200 then break end "
                    "end "
                    "table.sort(found,function(a,b) return a[1]<b[1] end) "
                    "local n=math.ceil(#found/2) "
                    "for i=1,n do redis.call('UNLINK',found[i][2]) end "
                    "return {cursor,n}"),
    /* -> INFO server, seconds, microseconds, INFO replication: it may be one that takes no writes; INFO memory */
    [RR_SERVER] = ("local t=redis.call('TIME') "
                   "return {redis.call('INFO','server'),t[1],t[2],redis.call('INFO','replication'),"
                   "redis.call('INFO','memory')}"),
};
