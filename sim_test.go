package apns_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/internal/plain"
)

var (
	simWorlds = flag.Uint64("sim", 1000, "simulate so many worlds")
	simSeed   = flag.Uint64("seed", 0, "simulate the world of this seed, until it fails, and show what happens in it")
)

// A Client, a network and a server, all of which fail in all the ways they can, as
// a seed has it, in simulated time. Whatever happens, each message has one fate,
// and the fate is true. One in ten worlds has TLS; without it there is time for
// the others.
//
//	go test -run Simulation -sim 1000000 -timeout 0 .
//	go test -run Simulation -seed 4711 .
func TestSimulation(t *testing.T) {
	// With one processor the goroutines of a world take turns, and mostly the
	// same ones each time.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	if *simSeed > 0 {
		var w *world
		for range 100 {
			w = newWorld(*simSeed)
			if w.run(t); t.Failed() {
				break
			}
		}
		fmt.Println(strings.Join(w.trace, "\n"))
		return
	}
	worlds := *simWorlds
	if raceEnabled {
		worlds /= 10
	}
	var all tally
	for seed := uint64(1); seed <= worlds; seed++ {
		w := newWorld(seed)
		w.run(t)
		all.add(&w.tally)
		if t.Failed() {
			t.Fatalf("seed %d: see it with\n\tgo test -run Simulation -seed %d .", seed, seed)
		}
	}
	t.Logf("%+v", all)
	if worlds >= 500 {
		all.wantEverything(t)
	}
}

// A seed that fails can be looked at, because it does the same again: each choice
// in a world is its seed's, and only what is ready at the same instant runs in an
// order of the Go scheduler's own, which a busy machine disturbs. Over HTTP/2 there
// is more of that, in net/http.
func TestSimulationRepeats(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector has the scheduler choose at random")
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for seed := uint64(1); seed <= 100; seed++ {
		if w := newWorld(seed); w.http2 || w.tls {
			continue
		}
		traces := make(map[string]bool)
		for range 10 {
			w := newWorld(seed)
			w.run(t)
			slices.Sort(w.trace)
			trace := strings.Join(w.trace, "\n")
			if traces[trace] {
				break
			}
			traces[trace] = true
		}
		if len(traces) == 10 {
			t.Errorf("seed %d: 10 runs, and no two are the same", seed)
		}
	}
}

// A tally counts what happened, to see that it did.
type tally struct {
	Worlds, HTTP2, Talking                  int
	Accepted, Rejected, NotSent, InDoubt    int
	GivenUp, Resent, Twice, Dials, Failures int
}

func (a *tally) add(b *tally) {
	a.Worlds += b.Worlds
	a.HTTP2 += b.HTTP2
	a.Talking += b.Talking
	a.Accepted += b.Accepted
	a.Rejected += b.Rejected
	a.NotSent += b.NotSent
	a.InDoubt += b.InDoubt
	a.GivenUp += b.GivenUp
	a.Resent += b.Resent
	a.Twice += b.Twice
	a.Dials += b.Dials
	a.Failures += b.Failures
}

func (a *tally) wantEverything(t *testing.T) {
	for name, n := range map[string]int{"HTTP/2": a.HTTP2, "talking": a.Talking, "accepted": a.Accepted, "rejected": a.Rejected, "not sent": a.NotSent,
		"in doubt": a.InDoubt, "given up": a.GivenUp, "resent": a.Resent, "taken twice": a.Twice, "failed dials": a.Failures} {
		if n == 0 {
			t.Errorf("%s: none in all worlds, want some", name)
		}
	}
}

// A world is one simulation. Every choice in it is made by the seed and by what
// the choice is about, so that it does not depend on the order of choices.
type world struct {
	seed    uint64
	http2   bool
	tls     bool
	talking bool // every connection ends with a packet or a GOAWAY, and nobody gives up
	tally   tally
	trace   []string
	server  *apnstest.Server
	client  *apns.Client

	mu      sync.Mutex // protects following
	tries   map[string]uint64
	results map[string][]error // by token
	handed  map[string]bool    // tokens, to PushAll
	broken  map[string]bool    // tokens, to a PushAll whose loop was broken off
	dials   uint64
	start   time.Time
}

func newWorld(seed uint64) *world {
	w := &world{seed: seed, tries: make(map[string]uint64), results: make(map[string][]error), handed: make(map[string]bool), broken: make(map[string]bool)}
	w.tls = seed%10 == 0
	w.http2 = w.chance(0.5, "http2")
	w.talking = w.chance(0.4, "talking")
	return w
}

// pick returns a number below n.
func (w *world) pick(n uint64, about ...any) uint64 {
	h := w.seed*0x9e3779b97f4a7c15 + 1
	mix := func(x uint64) {
		h ^= x
		h ^= h >> 31
		h *= 0xbf58476d1ce4e5b9
		h ^= h >> 27
		h *= 0x94d049bb133111eb
		h ^= h >> 31
	}
	for _, a := range about {
		switch a := a.(type) {
		case string:
			for _, c := range []byte(a) {
				mix(uint64(c))
			}
		case uint64:
			mix(a)
		case int:
			mix(uint64(a))
		}
		mix(0xff)
	}
	return h % n
}

func (w *world) chance(p float64, about ...any) bool {
	return float64(w.pick(1e6, about...)) < p*1e6
}

func (w *world) duration(most time.Duration, about ...any) time.Duration {
	return time.Duration(w.pick(uint64(most)+1, about...))
}

func (w *world) log(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trace = append(w.trace, fmt.Sprintf("%12v ", time.Since(w.start))+fmt.Sprintf(format, args...))
}

func (w *world) run(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w.start = time.Now()
		w.simulate()
		time.Sleep(time.Second) // a late read comes back; goroutines that are left after that fail the test
		w.check(t)
	})
}

func (w *world) simulate() {
	w.server = apnstest.NewUnstartedServer(w.handle)
	w.server.InMemory = true
	w.server.BufferSize = 1 << (8 + w.pick(8, "buffer"))
	w.server.StreamLimit = 1 + int(w.pick(30, "streams"))
	switch {
	case w.chance(0.1, "barrier without ID"):
		w.server.Barrier = &apns.PushError{Status: apns.StatusMissingToken}
	case !w.talking && w.chance(0.15, "no barrier"):
		w.server.Barrier = apns.StatusNoError
	case !w.talking && w.chance(0.15, "barrier's end"):
		w.server.Barrier = apnstest.Fault{Err: apns.StatusMissingToken, Cut: int(w.pick(7, "barrier's cut")), End: apnstest.End(w.pick(6, "barrier's end"))}
	}
	w.server.Start()
	defer w.server.Close()

	config := w.server.Config()
	if w.tls && w.http2 && w.chance(0.5, "key") {
		config = w.server.TokenConfig()
	}
	config.DialContext = w.dialer(config.DialContext)
	w.client = &apns.Client{
		Addr:            "gateway.example.com:2195",
		Config:          config,
		Timeout:         time.Minute,
		Attempts:        1 + int(w.pick(10, "attempts")),
		InDoubt:         policy(w.chance(0.4, "at least once")),
		MaxInFlight:     1 + int(w.pick(1<<w.pick(10, "window's size"), "window")),
		MaxConns:        1 + int(w.pick(4, "connections")),
		ConfirmInterval: 1 + w.duration(3*time.Second, "confirm"),
	}
	if w.http2 {
		w.client.Addr = apns.Production
		w.tally.HTTP2++
	}
	if w.talking {
		w.tally.Talking++
		w.client.Timeout = time.Hour
		w.client.Attempts = 1000
	} else if w.server.Barrier == apns.StatusNoError && w.chance(0.5, "settle") {
		w.client.AssumeAcceptedAfter = time.Second + w.duration(5*time.Second, "settle for")
	}
	ctx := context.Background()
	var callers sync.WaitGroup
	for i := range int(w.pick(3, "batches")) {
		callers.Go(func() { w.pushAll(ctx, i) })
	}
	for i := range int(w.pick(20, "pushers")) {
		callers.Go(func() { w.pushMany(ctx, i) })
	}
	quit := make(chan struct{})
	var others sync.WaitGroup
	if w.http2 {
		others.Go(func() { w.changeLimit(quit) })
	}
	if !w.talking && w.chance(0.1, "close") {
		others.Go(func() {
			time.Sleep(w.duration(10*time.Second, "close at"))
			w.log("Close")
			w.client.Close()
		})
	}
	if w.chance(0.1, "shutdown early") {
		time.Sleep(w.duration(5*time.Second, "shutdown at"))
	} else {
		callers.Wait()
	}
	shutdown, cancel := context.WithTimeout(ctx, 12*time.Hour)
	defer cancel()
	w.log("Shutdown")
	if err := w.client.Shutdown(shutdown); err != nil {
		w.log("Shutdown: %v", err)
		w.client.Close()
	}
	callers.Wait()
	close(quit)
	others.Wait()
}

// changeLimit changes the server's stream limit now and then.
func (w *world) changeLimit(quit <-chan struct{}) {
	for i := 0; w.chance(0.7, "change", i); i++ {
		t := time.NewTimer(w.duration(time.Second, "change at", i))
		defer t.Stop()
		select {
		case <-t.C:
			w.server.SetStreamLimit(1 + int(w.pick(1<<w.pick(6, "limit's size", i), "limit", i)))
		case <-quit:
			return
		}
	}
}

// simToken returns the token of a message. That the message is bad is a matter of
// its token alone.
func (w *world) simToken(caller, i int) (token string, bad bool) {
	return fmt.Sprintf("%04x%08x", caller, i), w.chance(0.02, "bad", caller, i)
}

func (w *world) message(caller, i int) *apns.Message {
	token, _ := w.simToken(caller, i)
	m := &apns.Message{ID: uint32(caller<<16 | i), Token: token, Payload: apns.AlertPayload(strings.Repeat("x", int(w.pick(300, "size", caller, i))))}
	m.Topic = apnstest.Topic
	if w.chance(0.3, "priority", caller, i) {
		m.Priority = apns.PriorityImmediate
	}
	if w.chance(0.01, "broken", caller, i) {
		m.Payload = nil // breaks a rule
	}
	return m
}

func (w *world) pushAll(ctx context.Context, caller int) {
	n := int(w.pick(1<<w.pick(10, "batch's size", caller), "batch", caller))
	var tokens []string
	msgs := func(yield func(*apns.Message) bool) {
		for i := range n {
			if w.chance(0.02, "slow", caller, i) {
				time.Sleep(w.duration(2*time.Second, "slow for", caller, i))
			}
			m := w.message(caller, i)
			w.mu.Lock()
			w.handed[m.Token] = true
			tokens = append(tokens, m.Token)
			w.mu.Unlock()
			if !yield(m) {
				return
			}
		}
	}
	giveUp := -1
	if !w.talking && w.chance(0.3, "gives up", caller) {
		if w.chance(0.5, "breaks off", caller) {
			giveUp = int(w.pick(uint64(n)+1, "breaks off at", caller))
		} else {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, w.duration(20*time.Second, "gives up after", caller))
			defer cancel()
		}
	}
	results := 0
	for r := range w.client.PushAll(ctx, iter.Seq[*apns.Message](msgs)) {
		w.result(r.Message.Token, r.Err, r.Message.ID)
		if results == giveUp {
			break
		}
		if results++; w.chance(0.02, "slow to read", caller, results) {
			time.Sleep(w.duration(2*time.Second, "slow to read for", caller, results))
		}
	}
	if results == giveUp {
		w.mu.Lock()
		for _, token := range tokens {
			w.broken[token] = true
		}
		w.mu.Unlock()
	}
	w.log("batch %d is done, %d results", caller, results)
}

func (w *world) pushMany(ctx context.Context, pusher int) {
	caller := 100 + pusher
	time.Sleep(w.duration(3*time.Second, "begins", caller))
	for i := range int(w.pick(10, "pushes", caller)) {
		ctx, cancel := context.WithCancel(ctx)
		if !w.talking && w.chance(0.2, "deadline", caller, i) {
			cancel()
			ctx, cancel = context.WithTimeout(context.Background(), w.duration(20*time.Second, "deadline after", caller, i))
		}
		m := w.message(caller, i)
		w.mu.Lock()
		w.handed[m.Token] = true
		w.mu.Unlock()
		// Many have their answers at the same instant. If they pushed again at the
		// same instant, their times would end together, in an order that synctest
		// makes random.
		time.Sleep(w.duration(time.Microsecond, "pauses", caller, i))
		_, err := w.client.Push(ctx, m)
		cancel()
		w.result(m.Token, err, m.ID)
	}
}

func (w *world) result(token string, err error, id uint32) {
	if e, ok := errors.AsType[*apns.PushError](err); ok && e.ID != id {
		err = fmt.Errorf("WRONG ID %d, want %d: %w", e.ID, id, err)
	}
	w.log("%s: %v", token, err)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.results[token] = append(w.results[token], err)
}

// handle decides what the server does with a message.
func (w *world) handle(m *apns.Message) error {
	w.mu.Lock()
	w.tries[m.Token]++
	try := w.tries[m.Token]
	w.mu.Unlock()
	time.Sleep(1 + w.duration(10*time.Microsecond, "takes", m.Token, try))
	caller, _ := strconv.ParseUint(m.Token[:4], 16, 64)
	i, _ := strconv.ParseUint(m.Token[4:], 16, 64)
	var err error
	if _, bad := w.simToken(int(caller), int(i)); bad {
		err = apns.StatusInvalidToken
		if w.http2 {
			err = apns.ReasonUnregistered
		}
	}
	pick := func(n uint64, about string) uint64 { return w.pick(n, about, m.Token, try) }
	switch {
	case !w.chance(0.02, "fault", m.Token, try):
		return err
	case w.http2:
		err = w.fault2(err, pick)
	default:
		err = w.fault1(err, pick)
	}
	w.log("server: %s, time %d: %v", m.Token, try, err)
	return err
}

// fault1 is a fault on the binary wire.
func (w *world) fault1(err error, pick func(uint64, string) uint64) error {
	f := apnstest.Fault{Err: err, Split: int(pick(4, "split"))}
	if pick(2, "delayed") == 0 {
		f.Delay = time.Duration(pick(uint64(time.Second), "delay"))
	}
	if err == nil {
		f.Err = apns.StatusShutdown // which takes it
	}
	if w.talking {
		f.End = apnstest.End(pick(3, "end")) // all of which let the packet be read
		return f
	}
	f.End = apnstest.End(pick(6, "end"))
	switch pick(6, "kind") {
	case 0: // with the packet, unless a reset overtakes it
	case 1:
		f.Err = nil // not taken
	case 2:
		if err == nil {
			f.Err = apns.StatusNoError // taken
		}
	case 3:
		f.Cut = 1 + int(pick(6, "cut"))
	case 4:
		f.Err = &apns.PushError{ID: 0, Status: apns.StatusProcessingError}
	case 5:
		f.Err = &apns.PushError{ID: 1<<31 + uint32(pick(9, "ID")), Status: apns.Status(pick(256, "status"))}
	}
	return f
}

// fault2 is a fault on the HTTP/2 wire.
func (w *world) fault2(err error, pick func(uint64, string) uint64) error {
	f := apnstest.Fault{Err: err, Delay: time.Duration(pick(uint64(5*time.Second), "delay")), Reason: apns.ReasonShutdown}
	if err == nil {
		f.Err = apns.StatusNoError
	}
	switch pick(8, "kind") {
	case 0:
		f.Err = apns.ReasonTooManyRequests
	case 1:
		f.Err = &apns.PushError{HTTPStatus: 503, Reason: apns.ReasonServiceUnavailable, RetryAfter: time.Duration(pick(10, "retry")) * time.Second}
	case 2:
		f.Err = apns.ReasonInternalServerError
	case 3:
		f.End = apnstest.EndRefusedStream
	case 4:
		f.End = apnstest.EndGoAway
	case 5:
		f.End = apnstest.EndGoAwayUnprocessed
	case 6:
		if !w.talking {
			f.End = []apnstest.End{apnstest.EndRST, apnstest.EndSilence, apnstest.EndFINThenRST, apnstest.EndFIN}[pick(4, "end")]
		}
	case 7:
		if !w.talking && err == nil {
			f.Err = nil // never answered
		}
	}
	return f
}

// dialer has dials refused, and connections that are slow or break.
func (w *world) dialer(next dialer) dialer {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		w.mu.Lock()
		w.dials++
		number := w.dials
		w.mu.Unlock()
		time.Sleep(w.duration(50*time.Millisecond, "dial takes", number))
		if w.chance(0.1, "refused", number) {
			w.mu.Lock()
			w.tally.Failures++
			w.mu.Unlock()
			w.log("dial %d is refused", number)
			return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
		}
		if !w.tls {
			ctx = plain.Context(ctx)
		}
		raw, err := next(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		c := &simConn{Conn: raw, world: w, number: number, slow: w.chance(0.5, "is slow", number)}
		c.left = -1
		if !w.talking && w.chance(0.1, "breaks", number) {
			c.left = int64(w.pick(20000, "breaks after", number))
		}
		w.log("connection %d", number)
		if w.tls {
			return c, nil
		}
		session := &plain.Conn{Conn: c}
		if w.http2 {
			session.Protocol = "h2"
		}
		return session, nil
	}
}

// A simConn is the client's end of a connection over a poor network.
type simConn struct {
	net.Conn
	world  *world
	number uint64
	slow   bool

	mu     sync.Mutex // protects following
	left   int64      // bytes until it breaks; negative: it does not
	reads  uint64
	writes uint64
}

// spend notes that n bytes pass, and reports how many can.
func (c *simConn) spend(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left >= 0 {
		n = int(min(int64(n), c.left))
		c.left -= int64(n)
	}
	return n
}

func (c *simConn) count(counter *uint64) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	*counter++
	return *counter
}

func (c *simConn) Read(p []byte) (int, error) {
	op := c.count(&c.reads)
	if c.slow && len(p) > 1 && c.world.chance(0.2, "partial read", c.number, op) {
		p = p[:1+c.world.pick(uint64(len(p))-1, "part", c.number, op)]
	}
	n, err := c.Conn.Read(p)
	time.Sleep(1 + c.world.duration(20*time.Microsecond, "read takes", c.number, op))
	if c.slow && c.world.chance(0.2, "late read", c.number, op) {
		time.Sleep(c.world.duration(100*time.Millisecond, "late", c.number, op))
	}
	if n > 0 && c.spend(n) < n {
		c.snap()
		return 0, syscall.ECONNRESET
	}
	return n, err
}

func (c *simConn) Write(p []byte) (int, error) {
	op := c.count(&c.writes)
	n := 0
	time.Sleep(1 + c.world.duration(20*time.Microsecond, "write takes", c.number, op))
	for n < len(p) {
		piece := p[n:]
		if c.slow && len(piece) > 1 && c.world.chance(0.2, "partial write", c.number, op) {
			piece = piece[:1+c.world.pick(uint64(len(piece))-1, "piece", c.number, op, n)]
			time.Sleep(c.world.duration(50*time.Millisecond, "late piece", c.number, op, n))
		}
		can := c.spend(len(piece))
		k, err := c.Conn.Write(piece[:can])
		n += k
		if err != nil {
			return n, err
		}
		if can < len(piece) {
			c.snap()
			return n, syscall.ECONNRESET
		}
	}
	return n, nil
}

func (c *simConn) snap() {
	c.world.log("connection %d breaks", c.number)
	c.Conn.Close()
}

// check compares the fates with what the server did.
func (w *world) check(t *testing.T) {
	w.tally.Worlds++
	taken, refused := make(map[string]int), make(map[string]int)
	for _, r := range w.server.Records() {
		switch r.Outcome {
		case apnstest.Accepted:
			taken[r.Message.Token]++
		case apnstest.Rejected:
			refused[r.Message.Token]++
		}
	}
	bad := func(token, format string, args ...any) {
		t.Helper()
		t.Errorf("seed %d, HTTP/2 %v, talking %v, message %s: %s; the server took it %d times, refused it %d times; results %v", w.seed, w.http2, w.talking, token,
			fmt.Sprintf(format, args...), taken[token], refused[token], w.results[token])
	}
	tokens := make([]string, 0, len(w.handed))
	for token := range w.handed {
		tokens = append(tokens, token)
	}
	slices.Sort(tokens)
	for _, token := range tokens {
		results := w.results[token]
		if len(results) != 1 {
			if len(results) == 0 && w.broken[token] {
				w.tally.GivenUp++
				continue
			}
			bad(token, "it has %d fates, want 1", len(results))
			continue
		}
		err := results[0]
		said, rejected := errors.AsType[*apns.PushError](err)
		switch {
		case err == nil:
			w.tally.Accepted++
			if taken[token] == 0 && w.client.AssumeAcceptedAfter == 0 {
				bad(token, "accepted")
			}
		case strings.Contains(err.Error(), "WRONG ID"):
			bad(token, "%v", err)
		case rejected:
			w.tally.Rejected++
			if refused[token] == 0 {
				bad(token, "rejected")
			}
			if !said.Rejected() {
				bad(token, "rejected by a server that accepted it")
			}
		case errors.Is(err, apns.ErrInDoubt) && errors.Is(err, apns.ErrNotSent):
			bad(token, "both in doubt and not sent")
		case errors.Is(err, apns.ErrNotSent):
			w.tally.NotSent++
			if taken[token] > 0 {
				bad(token, "not sent")
			}
			if w.talking && !errors.Is(err, net.ErrClosed) {
				bad(token, "not sent, and nobody gave up")
			}
		case errors.Is(err, apns.ErrInDoubt):
			w.tally.InDoubt++
			if w.talking {
				bad(token, "in doubt, and the server always said what it did")
			}
		case errors.Is(err, apns.ErrInvalid):
			w.tally.Rejected++
			if taken[token]+refused[token] > 0 {
				bad(token, "broke a rule, and was sent")
			}
		default:
			bad(token, "it has an error of no known fate")
		}
		if taken[token] > 1 {
			w.tally.Twice++
			if w.client.InDoubt == apns.InDoubtReport || w.talking {
				bad(token, "taken twice")
			}
		}
	}
	if len(w.broken) == 0 {
		for token := range w.results {
			if !w.handed[token] {
				bad(token, "a result for what was not handed over")
			}
		}
	}
	s := w.client.Stats()
	settled := s.Accepted + s.Invalid + s.NotSent + s.InDoubt
	for _, n := range s.Rejected {
		settled += n
	}
	if s.InFlight+s.Waiting != 0 || len(w.broken) == 0 && settled != uint64(len(tokens)) {
		t.Errorf("seed %d: stats %+v, want the fates of %d messages and nothing in flight", w.seed, s, len(tokens))
	}
	w.tally.Resent += int(s.Resent)
	w.tally.Dials += int(s.Connected)
	most := time.Hour
	if !w.talking {
		most += time.Duration(len(tokens)) * 2 * w.client.Timeout
	}
	if took := time.Since(w.start); took > most {
		t.Errorf("seed %d: it took %v, want an end before %v", w.seed, took, most)
	}
}
