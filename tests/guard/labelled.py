"""Cases labelled by hand from RULES.md: rules, a trace, and what must be said of a call after it.

A block is a title, rules, then a trace with questions. A step is a call and its answer (`ok`, `err`, `lost`, or `go`
for none yet; `ok` may bring a result), `answer NAME`-less things that happen (`user "…"`, `say "…"`, `confirm CALL by
WHO`, `no CALL`, `withdraw CALL`, `tick`, `wait SECONDS`, `fork PARENT CHILD`, `finish`, `late ok` for an answer to the
last call that has none). `? CALL` asks: `allow`, or the rules that deny with their values. `p2` before a step or
question is its process, `#a,b` behind a step its labels. Section numbers are those of RULES.md.
"""

TOOLS = """viability V0
tool login(user: Str) -> Id
tool read(o: Id) -> {status: Str, items: [{id: Id, price: Decimal(2)}]}
tool modify(o: Id)
tool cancel(o: Id, why: Str?)
tool pay(amount: Decimal(2), team: Str)
tool lock(l: Id)
tool release(l: Id)
tool swap(old: [Id], new: [Id])
tool note(text: Str, level: "low" | "high"?, n: Int?, data: Json?)
tool find() -> Json
group write = modify | cancel
user(asks: Bool?)
"""

CASES = """
# S1 nothing happened: a past that is needed is missing
rule a: require once ok login() before read()
? read(o="W") : a=false
? modify(o="W") : allow

# a success opens what a failure does not
rule a: require once ok login() before read()
login(user="ann") err
? read(o="W") : a=false
login(user="ann") ok "ann_1"
? read(o="W") : allow

# S2 a call without an answer makes what listens to it unknown, and unknown is not enough
rule a: require once ok login() before read()
rule b: forbid modify() when once ok login()
login(user="ann") go
? read(o="W") : a=unknown
? modify(o="W") : b=unknown
late ok "x"
? read(o="W") : allow
? modify(o="W") : b=true

# S2 lost leaves it open, a later err settles it
rule a: forbid modify() when once ok login()
login(user="ann") lost
? modify(o="W") : a=unknown
late err
? modify(o="W") : allow

# S2 a batch is refused although no ok exists yet, the other order is harmless
rule a: forbid cancel(o = o) when once ok modify(o = o)
modify(o="W") go
? cancel(o="W") : a=unknown
? cancel(o="V") : allow
? modify(o="W") : allow

# S2 an aggregate of events that matches a maybe event is unknown, another is not
rule a: require count of ok read() <= 5 before modify()
rule b: require count of ok login() <= 5 before modify()
rule c: require count of start read() <= 5 before modify()
read(o="W") go
? modify(o="W") : a=unknown

# S2 what is equal either way stays known
register last: Id on ok lock(l) set l
rule a: require last = "a" before modify()
lock(l="a") ok
lock(l="a") go
? modify(o="W") : allow
lock(l="b") go
? modify(o="W") : a=unknown

# S2 arrival order does not matter: two that wait hand on from one to the other
register one: Id on ok lock(l) set l
register two: Id on ok release() set one
rule a: require not known(two) before modify()
rule b: forbid cancel() when two = "a"
release(l="x") go
lock(l="a") go
? cancel(o="W") : b=unknown
? modify(o="W") : allow

# S2 a maybe event has no start, and no lost
rule a: forbid modify() when once lost login()
rule b: require not start login() before cancel()
login(user="ann") go
? modify(o="W") : allow
? cancel(o="W") : b=unknown

# S1 comparisons with an unknown are unknown, known() never is
register seen_status[o]: Str on ok read(o = o) set result.status
rule a: require seen_status[o] = "new" before modify(o)
rule b: require seen_status[o] = seen_status[o] before cancel(o)
rule c: forbid release(l) when known(seen_status[l])
? modify(o="W") : a=unknown
? cancel(o="W") : b=unknown
? release(l="W") : allow
read(o="W") ok {"status": "new"}
? modify(o="W") : allow
? cancel(o="W") : allow
? release(l="W") : c=true
read(o="W") ok {"status": 7}
? modify(o="W") : a=unknown

# S1 strong Kleene: one true is enough for or, one false for and
register s: Str on ok read() set result.status
rule a: require s = "new" or true before modify()
rule b: require s = "new" and false before cancel()
rule c: require s = "new" implies true before lock()
rule d: require not (s = "new") before release()
? modify(o="W") : allow
? cancel(o="W") : b=false
? lock(l="x") : allow
? release(l="x") : d=unknown

# S1 an if that nobody knows: unknown unless old and new are equal
register s: Str = "new" on ok find() if result.sure set "new"
register t: Str = "new" on ok find() if result.sure set "old"
rule a: require s = "new" before modify()
rule b: require t = "new" before cancel()
find() ok {}
? modify(o="W") : allow
? cancel(o="W") : b=unknown
find() ok {"sure": True}
? cancel(o="W") : b=false

# S1 an unknown key makes the whole register unknown until that entry is set again
register s[o]: Int = 0 on ok find() at (result.key) set 1
rule a: require s["x"] = 1 before modify()
rule b: require s["y"] = 0 before cancel()
find() ok {"key": "x"}
? modify(o="W") : allow
? cancel(o="W") : allow
find() ok {}
? modify(o="W") : a=unknown
? cancel(o="W") : b=unknown
find() ok {"key": "x"}
? modify(o="W") : allow
? cancel(o="W") : b=unknown

# S3 a rule sees its own process, a shared one all
rule a: require once ok login() before read()
shared rule b: require once ok login() before modify()
p1 login(user="ann") ok
? p2 read(o="W") : a=false
? p2 modify(o="W") : allow
? p1 read(o="W") : allow

# S3 a fork starts with its parent's past, and parts from it
rule a: require once ok login() before read()
rule b: forbid modify() when once ok lock()
p1 login(user="ann") ok
fork 1 2
p1 lock(l="x") ok
? p2 read(o="W") : allow
? p2 modify(o="W") : allow
? p1 modify(o="W") : b=true
? p3 read(o="W") : a=false

# S3 a fork has no outstanding calls and no confirmations of its parent
rule a: forbid modify() when once ok lock()
rule b: require confirmed before cancel()
p1 lock(l="x") go
p1 confirm cancel(o="W") by ann
fork 1 2
? p1 modify(o="W") : a=unknown
? p2 modify(o="W") : allow
? p1 cancel(o="W") : allow
? p2 cancel(o="W") : b=false

# S3 a fork copies charges
rule a: limit sum(amount) of pay(amount) to 10
p1 pay(amount=8, team="x") ok
fork 1 2
p1 pay(amount=2, team="x") ok
? p2 pay(amount=2, team="x") : allow
? p2 pay(amount=2.01, team="x") : a=false
? p1 pay(amount=0.01, team="x") : a=false

# S4 windows in time are closed
rule a: require once within 10s ok login() before read()
rule b: require once between 5s and 10s ok login() before modify()
login(user="ann") ok
wait 4.999
? read(o="W") : allow
? modify(o="W") : b=false
wait 0.001
? modify(o="W") : allow
wait 5
? read(o="W") : allow
? modify(o="W") : allow
wait 0.000001
? read(o="W") : a=false
? modify(o="W") : b=false

# S4 age in calls counts the starts after it, the proposed one included
rule a: require once within 2 calls ok login() before read()
login(user="ann") ok
? read(o="W") : allow
lock(l="x") go
? read(o="W") : allow
lock(l="x") go
? read(o="W") : a=false

# S4 ticks, messages and answers are no calls
rule a: require once within 1 calls ok login() before read()
login(user="ann") ok
tick
say "hello"
user "go on"
? read(o="W") : allow

# S4 a tick is no position
rule a: require previously start login() before read()
login(user="ann") ok
tick
? read(o="W") : allow
user "well"
? read(o="W") : a=false

# a call never sees itself
rule a: forbid modify(o = o) when once start modify(o = o)
? modify(o="W") : allow
modify(o="W") ok
? modify(o="W") : a=true

# previously at the first event is false
rule a: forbid modify() when previously ok login()
rule b: require not previously ok login() before cancel()
? modify(o="W") : allow
login(user="ann") go
late ok
? modify(o="W") : allow
user "x"
? modify(o="W") : a=true
? cancel(o="W") : b=false

# always, over nothing and until broken
rule a: require always not err pay() before modify()
rule b: require always within 5s not err pay() before cancel()
? modify(o="W") : allow
pay(amount=1, team="x") err
? modify(o="W") : a=false
? cancel(o="W") : b=false
wait 5.5
? modify(o="W") : a=false
? cancel(o="W") : allow

# since: holds, ends, begins again
rule a: require not ok release(l = l) since ok lock(l = l) before modify(o = l)
? modify(o="a") : a=false
lock(l="a") ok
? modify(o="a") : allow
? modify(o="b") : a=false
release(l="a") ok
? modify(o="a") : a=false
lock(l="a") ok
? modify(o="a") : allow
release(l="a") go
? modify(o="a") : a=unknown

# since in a window: the anchor's age counts
rule a: require not ok release() since within 5s ok lock() before modify()
lock(l="a") ok
wait 5
? modify(o="W") : allow
wait 1
? modify(o="W") : a=false
lock(l="a") ok
? modify(o="W") : allow

# nested past operators look at each position with its own clock
rule a: require once (ok lock() and once within 2s ok login()) before modify()
login(user="ann") ok
wait 2
lock(l="a") ok
wait 100
? modify(o="W") : allow

# nested: too late at that position
rule a: require once (ok lock() and once within 2s ok login()) before modify()
login(user="ann") ok
wait 2.5
lock(l="a") ok
? modify(o="W") : a=false

# Seq of Agent-C
rule a: require once ok lock() before modify()
rule b: require once (ok lock() and once ok login()) before modify()
lock(l="x") ok
login(user="ann") ok
? modify(o="W") : b=false
lock(l="x") ok
? modify(o="W") : allow

# Exists and Forall of Agent-C
rule a: finish requires once ok login()
rule b: require o != "V" before modify(o)
? finish : a=false
? modify(o="V") : b=false
login(user="ann") ok
? finish : allow

# section 2: a known name, literal or term is compared, a new one bound
const vip = "W"
rule a: forbid modify(o = vip)
rule b: forbid cancel(o = "V")
rule c: forbid swap(old = x, new = x)
? modify(o="W") : a=true
? modify(o="V") : allow
? cancel(o="V") : b=true
? cancel(o="W") : allow
? swap(old=["a"], new=["a"]) : c=true
? swap(old=["a"], new=["b"]) : allow

# a head that nobody knows to match, with what it then asks
rule a: forbid cancel(why = "fun")
rule b: require why in {"lost", "late"} before cancel(why)
? cancel(o="W", why="late") : allow
? cancel(o="W", why="fun") : a=true b=false
? cancel(o="W") : a=true b=unknown

# groups and any
rule a: forbid write(o = "W")
rule b: require once start any() before any()
? modify(o="W") : a=true b=false
login(user="x") go
? cancel(o="W") : a=true
? modify(o="V") : allow

# err, lost, start and where
rule a: forbid lock() when once err pay()
rule b: forbid release() when once lost pay()
rule c: forbid modify() when once ok read() where (result.status = "sent")
rule d: forbid cancel() when once start read() where ("web" in labels)
pay(amount=1, team="x") lost
late err
read(o="W") ok {"status": "sent"} #web
? lock(l="x") : a=true
? release(l="x") : b=true
? modify(o="W") : c=true
? cancel(o="W") : allow

# where on a missing field is unknown
rule a: forbid modify() when once ok read() where (result.status = "sent")
read(o="W") ok {}
? modify(o="W") : a=unknown
read(o="W") ok {"status": "new"}
? modify(o="W") : a=unknown

# user, say, confirm as events
rule a: require once user(text = "go") before lock()
rule b: require once user(asks = true) before release()
rule c: forbid modify() when once say(text = "done")
rule d: require once confirm(answer = "yes", by = "ann") before pay()
? lock(l="x") : a=false
? pay(amount=1, team="x") : d=false
user "go"
? lock(l="x") : allow
? release(l="x") : b=unknown
say "done"
? modify(o="W") : c=true
confirm cancel(o="W") by bob
? pay(amount=1, team="x") : d=false
confirm cancel(o="W") by ann
? pay(amount=1, team="x") : allow

# messages may be forbidden
rule a: forbid say(text) when once ok lock() and text != "bye"
rule b: limit count of say() within 10s to 2
say "one"
lock(l="x") ok
? say "two" : a=true
? say "bye" : allow
say "bye"
? say "bye" : b=false
wait 11
? say "bye" : allow

# S5 registers read old values, the first clause that matches counts
register n: Int = 0 on ok lock() set n + 1 on ok any() set 100
register former: Int = 0 on ok lock() set n
rule a: require n = 2 before modify()
rule b: require former = 1 before cancel()
lock(l="x") ok
lock(l="y") ok
? modify(o="W") : allow
? cancel(o="W") : allow
release(l="x") ok
? modify(o="W") : a=false
? cancel(o="W") : allow

# S5 one event sets several keys; equal keys with different values give unknown
register price[i]: Decimal(2) on ok read() each x in result.items at (x.id) set x.price
rule a: require price[o] <= 5 before modify(o)
read(o="W") ok {"items": [{"id": "a", "price": 5}, {"id": "b", "price": 6}]}
? modify(o="a") : allow
? modify(o="b") : a=false
? modify(o="c") : a=unknown
read(o="W") ok {"items": [{"id": "b", "price": 1}, {"id": "b", "price": 2}]}
? modify(o="b") : a=unknown
? modify(o="a") : allow
read(o="W") ok {"items": "none"}
? modify(o="a") : a=unknown

# the values of a map are walked too
relation got(x) on ok find() each v in result add (v)
rule a: require (exists g in got: g.x = o) before modify(o)
find() ok {"k": "a", "l": "b"}
? modify(o="a") : allow
? modify(o="k") : a=false

# relation latest by: one event replaces the rows of its key, also by none
relation line(o, i, p) latest by o on ok read(o = o) each x in result.items add (o, x.id, x.price)
rule a: require (exists x in line: x.o = o and x.p <= 5) before modify(o)
rule b: require count over x in line <= 2 before cancel()
rule c: require sum(x.p) over x in line where (x.o = "W") <= 10 before lock()
read(o="W") ok {"items": [{"id": "a", "price": 5}, {"id": "b", "price": 6}]}
read(o="V") ok {"items": [{"id": "a", "price": 7}]}
? modify(o="W") : allow
? modify(o="V") : a=false
? cancel(o="W") : b=false
? lock(l="x") : c=false
read(o="W") ok {"items": []}
? modify(o="W") : a=false
? cancel(o="W") : allow
? lock(l="x") : allow

# relation without latest by: rows stay
relation met(x) on ok read(o = o) add (o)
rule a: require (exists m in met: m.x = o) before modify(o)
read(o="V") ok {}
read(o="W") ok {}
? modify(o="V") : allow
? modify(o="X") : a=false

# rows that nobody knows: possible ones decide nothing, further ones may come
relation line(o, i, p) latest by o on ok read(o = o) each x in result.items add (o, x.id, x.price)
rule a: require (exists x in line: x.o = o and x.p <= 5) before modify(o)
rule b: forbid cancel(o) when (exists x in line: x.o = o)
rule c: require (forall x in line: x.p < 100) before lock()
read(o="W") ok {"items": [{"id": "a", "price": 5}]}
read(o="W") go
? modify(o="W") : a=unknown
? cancel(o="V") : b=unknown
? lock(l="x") : c=unknown
late ok {"items": [{"id": "a", "price": 500}]}
? modify(o="W") : a=false
? cancel(o="V") : allow
? lock(l="x") : c=false

# quantifiers over lists, zip and nothing
rule a: require (forall x in old: x != "w") before swap(old, new)
rule b: require (exists x, y in zip(old, new): x = y) before swap(old, new)
? swap(old=["a", "b"], new=["c", "b"]) : allow
? swap(old=["w"], new=["w"]) : a=false
? swap(old=["a"], new=["b"]) : b=false
? swap(old=["a"], new=[]) : b=unknown
? swap(old=[], new=[]) : b=false

# functions of lists
rule a: require subset(old, new) before swap(old, new)
rule b: require subbag(old, new) before swap(old, new)
rule c: require len(old) <= 2 before swap(old, new)
? swap(old=["a", "a"], new=["a", "b"]) : b=false
? swap(old=["a"], new=["b"]) : a=false b=false
? swap(old=["a", "b", "a"], new=["a", "b", "a"]) : c=false
? swap(old=[], new=[]) : allow

# functions of texts; patterns are anchored
rule a: require starts(text, "Dear") and ends(text, ".") before note(text)
rule b: forbid note(text) when contains(text, "secret")
rule c: require text matches "[A-Za-z .]+" before note(text)
? note(text="Dear Ann.") : allow
? note(text="Dear Ann") : a=false
? note(text="Dear secret.") : b=true
? note(text="Dear 7.") : c=false

# enums, optional arguments, Json
rule a: require level = "low" before note(level)
rule b: forbid note(n) when known(n)
rule c: forbid note(data) when data.kind = "bad" or data = 1
? note(text="x", level="low", data={"kind": "good"}) : allow
? note(text="x", data={"kind": "good"}) : a=unknown
? note(text="x", level="high", n=1, data={"kind": "good"}) : a=false b=true
? note(text="x", level="low", data={"kind": "bad"}) : c=true
? note(text="x", level="low", data=1.0) : c=true
? note(text="x", level="low", data={}) : c=unknown
? note(text="x", level="mid") : !args

# S11 arguments are checked first, numbers as written
rule a: require amount != 1 before pay(amount)
? pay(amount=1.0, team="x") : a=false
? pay(amount=0.1, team="x") : allow
? pay(amount=0.125, team="x") : !args
? pay(amount="1", team="x") : !args
? pay(amount=True, team="x") : !args
? pay(amount=2) : !args
? pay(amount=2, team="x", why="y") : !args
? rob() : !tool

# S11 a text is never a number, and true is not 1
rule a: forbid note(data) when data = "1"
rule b: forbid note(data) when data = 1
? note(text="x", data=1) : b=true
? note(text="x", data="1") : a=true
? note(text="x", data=True) : allow
? note(text="x", data=[1]) : allow

# S11 Decimal results: too many decimals are unknown, with round half to even
register p: Decimal(1) on ok find() set result
register q: Decimal(1, round) on ok find() set result
rule a: require p < 100 before modify()
rule b: require q = 0.2 before cancel()
find() ok 0.25
? modify(o="W") : a=unknown
? cancel(o="W") : allow
find() ok 0.35
? cancel(o="W") : b=false
find() ok 7
? modify(o="W") : allow

# arithmetic is exact
rule a: require sum(amount) of ok pay() = 0.3 before modify()
rule b: require 2 * max(amount) of ok pay() < 1 before cancel()
pay(amount=0.1, team="x") ok
pay(amount=0.2, team="x") ok
? modify(o="W") : allow
? cancel(o="W") : allow

# aggregates of events: empty min is unknown, empty sum is 0
rule a: require min(amount) of ok pay() > 0 before modify()
rule b: require sum(amount) of ok pay() = 0 before cancel()
rule c: require distinct(team) of ok pay() < 2 before lock()
? modify(o="W") : a=unknown
? cancel(o="W") : allow
pay(amount=2, team="x") ok
pay(amount=2, team="y") ok
? modify(o="W") : allow
? cancel(o="W") : b=false
? lock(l="x") : c=false

# aggregates of events in windows
rule a: require count of ok read() within 10s < 2 before modify()
rule b: require count of start read() within 3 calls < 2 before cancel()
read(o="W") ok {}
wait 10
read(o="W") ok {}
? modify(o="W") : a=false
? cancel(o="W") : b=false
wait 1
lock(l="x") ok
? modify(o="W") : allow
? cancel(o="W") : b=false
lock(l="x") ok
? cancel(o="W") : allow

# S6 a limit includes the call; err releases, ok, lost and none keep
rule a: limit sum(amount) of pay(amount, team = t) per t to 10
pay(amount=4, team="x") ok
pay(amount=4, team="x") err
pay(amount=3, team="x") go
pay(amount=3, team="x") lost
? pay(amount=0, team="x") : allow
? pay(amount=0.01, team="x") : a=false
? pay(amount=10, team="y") : allow
late err
? pay(amount=3, team="x") : allow

# S6 the window of a limit is closed, in time
rule a: limit count of pay() within 1h to 1
pay(amount=1, team="x") ok
wait 3600
? pay(amount=1, team="x") : a=false
wait 0.5
? pay(amount=1, team="x") : allow

# S6 and in calls
rule a: limit count of pay() within 2 calls to 1
pay(amount=1, team="x") ok
? pay(amount=1, team="x") : a=false
lock(l="x") ok
? pay(amount=1, team="x") : a=false
lock(l="x") ok
? pay(amount=1, team="x") : allow

# S6 max, min and distinct of calls
rule a: limit max(amount) of pay(amount) to 5
rule b: limit distinct(team) of pay(team) to 2
rule c: limit count of pay(team = t) per t to 2
pay(amount=1, team="x") ok
pay(amount=1, team="y") ok
? pay(amount=5, team="x") : allow
? pay(amount=6, team="x") : a=false
? pay(amount=6, team="z") : a=false b=false
pay(amount=1, team="x") ok
? pay(amount=5, team="x") : c=false

# S6 the charge keeps the term as it was then
register rate: Int = 1 on ok find() set result
rule a: limit sum(rate) of modify() to 5
modify(o="a") ok
find() ok 4
? modify(o="b") : allow
modify(o="b") ok
find() ok 1
? modify(o="c") : a=false

# S6 the bound may be a register
register budget[t]: Decimal(2) = 0 on ok find() at (result.team) set result.budget
rule a: limit sum(amount) of pay(amount, team = t) per t to budget[t]
? pay(amount=0.01, team="x") : a=false
find() ok {"team": "x", "budget": 10}
? pay(amount=10, team="x") : allow
? pay(amount=10.01, team="x") : a=false
find() ok {"team": "x"}
? pay(amount=0, team="x") : a=unknown

# S6 a shared limit counts every process
shared rule a: limit count of pay() to 1
p1 pay(amount=1, team="x") ok
? p2 pay(amount=1, team="x") : a=false

# S7 a duty holds up the end; only ok does it
rule a: after ok lock(l = l) do release(l = l)
? finish : allow
lock(l="x") ok
? finish : !duty=false
release(l="y") ok
? finish : !duty=false
release(l="x") err
? finish : !duty=false
release(l="x") ok
? finish : allow

# S7 one ok does all duties that it matches, started before does not count
rule a: after ok lock() do release()
release(l="x") go
lock(l="x") ok
lock(l="y") ok
late ok
? finish : !duty=false
release(l="x") ok
? finish : allow

# S7 unless voids when true, at a later event
rule a: after ok lock(l = l) do release(l = l) unless user(text = "keep")
user "keep"
lock(l="x") ok
? finish : !duty=false
user "keep"
? finish : allow

# S7 a condition that nobody knows opens the duty
rule a: after ok read() if result.status = "new" do lock()
read(o="W") ok {"status": "old"}
? finish : allow
read(o="W") ok {}
? finish : !duty=false

# S7 late: else is owed instead
rule a: after ok lock(l = l) do release(l = l) within 10s else login()
lock(l="x") ok
wait 10.5
tick
release(l="x") ok
? finish : !duty=false
login(user="ann") ok
? finish : allow

# S7 within limits the start, not the result
rule a: after ok lock(l = l) do release(l = l) within 10s else login()
lock(l="x") ok
wait 10
release(l="x") go
wait 5
tick
late ok
? finish : allow

# S7 without else a late duty may still be done
rule a: after ok lock(l = l) do release(l = l) within 10s
lock(l="x") ok
wait 60
tick
? finish : !duty=false
release(l="x") ok
? finish : allow

# S7 the last slot of a call window is kept for the duty
rule a: after ok lock(l = l) do release(l = l) within 2 calls
lock(l="x") ok
? read(o="W") : allow
read(o="W") ok {}
? read(o="W") : !duty=false
? release(l="y") : !duty=false
? release(l="x") : allow
release(l="x") go
? read(o="W") : allow

# S7 a message may be owed
rule a: after ok lock() do say(text = "locked")
lock(l="x") ok
say "hm"
? finish : !duty=false
say "locked"
? finish : allow

# S7 do what was confirmed
rule a: after confirm(digest = d, answer = "yes") do any(digest = d) unless confirm(digest = d, answer = "withdraw")
confirm cancel(o="W") by ann
? finish : !duty=false
cancel(o="V") ok
? finish : !duty=false
cancel(o="W") ok
? finish : allow
confirm modify(o="W") by ann
? finish : !duty=false
withdraw modify(o="W") by ann
? finish : allow

# S7 a lost call that may have opened a duty holds up the end
rule a: after ok lock(l = l) do release(l = l)
lock(l="x") lost
? finish : !duty=unknown
late err
? finish : allow

# S7 a fork owes nothing of its parent's
rule a: after ok lock(l = l) do release(l = l)
p1 lock(l="x") ok
fork 1 2
? p2 finish : allow
? p1 finish : !duty=false

# S8 the end waits for answers, not for lost ones
rule a: finish requires not once err pay()
pay(amount=1, team="x") lost
? finish : a=unknown
read(o="W") go
? finish : a=unknown !outstanding=false

# S8 after the end every call of that process is denied
rule a: forbid modify(o = "W")
p1 finish
? p1 read(o="W") : !finished
? p1 finish : !finished
? p2 read(o="W") : allow

# S9 exactly this call, however its numbers and keys are written
rule a: require confirmed before pay()
confirm pay(team="x", amount=5.0) by ann
? pay(amount=5, team="x") : allow
? pay(amount=5.01, team="x") : a=false
? pay(amount=5, team="X") : a=false

# S9 texts are not normalised
rule a: require confirmed before modify()
confirm modify(o="caf\\u00e9") by ann
? modify(o="caf\\u00e9") : allow
? modify(o="cafe\\u0301") : a=false

# S9 an optional argument left out is another call than one written
rule a: require confirmed before cancel()
confirm cancel(o="W") by ann
? cancel(o="W") : allow
? cancel(o="W", why="late") : a=false

# S9 used up at start, given back on err
rule a: require confirmed before modify()
confirm modify(o="W") by ann
modify(o="W") go
? modify(o="W") : a=false
late err
? modify(o="W") : allow
modify(o="W") ok
? modify(o="W") : a=false

# S9 no and withdraw cancel what is unused
rule a: require confirmed before modify()
confirm modify(o="W") by ann
no modify(o="W") by bob
? modify(o="W") : a=false
confirm modify(o="W") by ann
? modify(o="W") : allow
withdraw modify(o="W") by ann
? modify(o="W") : a=false

# S9 n principals, in a window
rule a: require confirmed by 2 within 10m before modify()
confirm modify(o="W") by ann
confirm modify(o="W") by ann
? modify(o="W") : a=false
wait 300
confirm modify(o="W") by bob
? modify(o="W") : allow
wait 300
? modify(o="W") : allow
wait 1
? modify(o="W") : a=false

# S9 a shared rule counts what others were told
shared rule a: require confirmed before modify()
rule b: require confirmed before modify()
p2 confirm modify(o="W") by ann
? p1 modify(o="W") : b=false
? p2 modify(o="W") : allow
p1 modify(o="W") ok
? p2 modify(o="W") : a=false

# S10 values come from users, results and confirmations
rule a: require seen(o) before modify(o)
user "cancel W1, please"
say "V1"
read(o="V2") ok {"items": [{"id": "V3", "price": 7}]}
? modify(o="W1") : allow
? modify(o="W") : a=false
? modify(o="V1") : a=false
? modify(o="V2") : a=false
? modify(o="V3") : allow
? modify(o="items") : a=false
confirm modify(o="V4") by ann
? modify(o="V4") : allow

# S10 a call without an answer may bring any value
rule a: require seen(o) before modify(o)
rule b: forbid cancel(o) when seen(o)
find() go
? modify(o="W1") : a=unknown
? cancel(o="W1") : b=unknown

# S10 numbers occur by value and in texts
rule a: require seen(amount) before pay(amount)
user "pay 5 or 15"
find() ok [2.50]
? pay(amount=5, team="x") : allow
? pay(amount=1, team="x") : a=false
? pay(amount=2.5, team="x") : allow

# S10 labels of where a value occurs, and of all that was read
rule a: require (forall l in labels(o): l = "user") before modify(o)
rule b: forbid pay() when "secret" in labels(context)
user "W1" #user
find() ok "W2" #web
? modify(o="W1") : allow
? modify(o="W2") : a=false
? modify(o="W3") : allow
? pay(amount=1, team="x") : allow
find() ok "W1" #secret
? modify(o="W1") : a=false
? pay(amount=1, team="x") : b=true

# S10 what may come may have any label
rule b: forbid pay() when "secret" in labels(context)
find() go
? pay(amount=1, team="x") : b=unknown

# S14 all violated rules in file order
rule b: forbid modify()
rule a: require once ok login() before modify()
rule c: limit count of modify() to 0
? modify(o="W") : b=true a=false c=false

# S14 in a batch each call is judged after the admitted earlier ones
rule a: limit count of write() to 2
modify(o="a") go
cancel(o="a") go
? modify(o="b") : a=false
? read(o="b") : allow

# times: registers, differences, durations
register last: Time on ok login() set time
rule a: require once ok lock() where (time >= last + 5s) before modify()
login(user="ann") ok
wait 4
lock(l="x") ok
? modify(o="W") : a=false
wait 1
lock(l="x") ok
? modify(o="W") : allow

# literals that nobody knows
rule a: forbid modify(o) when o = unknown
rule b: require o in {"a", unknown} before cancel(o)
? modify(o="W") : a=unknown
? cancel(o="a") : allow
? cancel(o="b") : b=unknown
"""
