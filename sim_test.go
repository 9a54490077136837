package apns_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"maps"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/internal/plain"
)

var (
	simWorlds = flag.Uint64("sim", 1000, "simulate so many worlds")
	simSeed   = flag.Uint64("seed", 0, "simulate the world of this seed, and show what happens in it")
	simRepeat = flag.Uint64("repeat", 60, "simulate so many worlds 20 times each")
)

// A world has a Client, a network and a server, in simulated time. All of them fail in
// all the ways they can, as the seed decides. Whatever happens, each message has one
// outcome, and the outcome is true. One in ten worlds has TLS; without it there is time
// for the others.
//
//	go test -run Simulation -sim 1000000 -timeout 0 .
//	go test -run Simulation -seed 4711 .
func TestSimulation(t *testing.T) {
	if *simSeed > 0 {
		w := newWorld(*simSeed)
		w.tracing = true
		w.run(t)
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

// A world does the same again with the same seed, whatever the scheduler does: each
// message has the same outcome at the same instant, each connection the same attempts,
// and the server the same records of it.
func TestSimulationRepeats(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	seeds, runs := *simRepeat, 20
	if raceEnabled {
		seeds, runs = seeds/4, 4
	}
	for seed := uint64(1); seed <= seeds; seed++ {
		var first []string
		for i := range runs {
			runtime.GOMAXPROCS(1 + i%2)
			w := newWorld(seed)
			w.run(t)
			account := w.account()
			if i == 0 {
				first = account
			}
			if n := firstDifference(first, account); n >= 0 {
				t.Errorf("seed %d, HTTP/2 %v, TLS %v: run %d differs from the first one:\n%s\n%s", seed, w.http2, w.tls, i+1,
					at(first, n), at(account, n))
				break
			}
		}
	}
}

// firstDifference returns the index of the first line that differs, or -1.
func firstDifference(a, b []string) int {
	for i := range max(len(a), len(b)) {
		if at(a, i) != at(b, i) {
			return i
		}
	}
	return -1
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(the end)"
}

// A tally counts what happened, to see that it did.
type tally struct {
	Worlds, HTTP2, TLS, Talking               int
	Accepted, Rejected, NotSent, InDoubt      int
	Expired                                   int
	Abandoned, Resent, Twice, Dials, Failures int
	Breaks, Attempts                          int
}

func (a *tally) add(b *tally) {
	a.Worlds += b.Worlds
	a.HTTP2 += b.HTTP2
	a.TLS += b.TLS
	a.Talking += b.Talking
	a.Accepted += b.Accepted
	a.Rejected += b.Rejected
	a.NotSent += b.NotSent
	a.InDoubt += b.InDoubt
	a.Expired += b.Expired
	a.Abandoned += b.Abandoned
	a.Resent += b.Resent
	a.Twice += b.Twice
	a.Dials += b.Dials
	a.Failures += b.Failures
	a.Breaks += b.Breaks
	a.Attempts += b.Attempts
}

func (a *tally) wantEverything(t *testing.T) {
	for name, n := range map[string]int{"HTTP/2": a.HTTP2, "TLS": a.TLS, "talking": a.Talking, "accepted": a.Accepted, "rejected": a.Rejected,
		"not sent": a.NotSent, "in doubt": a.InDoubt, "expired": a.Expired, "abandoned": a.Abandoned, "resent": a.Resent, "accepted twice": a.Twice,
		"failed dials": a.Failures, "broken connections": a.Breaks} {
		if n == 0 {
			t.Errorf("%s: none in all worlds, want some", name)
		}
	}
}

// A world is one simulation. The seed makes every choice in it. A choice depends on what
// it is about, and not on the choices before it.
type world struct {
	seed    uint64
	http2   bool
	tls     bool
	talking bool // every connection ends with a packet or a GOAWAY, and nobody cancels
	tracing bool
	tally   tally
	trace   []string
	server  *apnstest.Server
	client  *apns.Client

	mu          sync.Mutex // protects following
	tries       map[string]uint64
	results     map[string][]simResult    // by token
	attempts    map[uint64][]apns.Attempt // by connection
	handed      map[string]bool           // tokens, to PushAll or Push
	broken      map[string]bool           // tokens, to a PushAll whose loop was broken off
	dials       uint64
	maxInFlight uint64
	start       time.Time
}

// A simResult is what a caller got for a message.
type simResult struct {
	at  time.Duration
	err error
}

func newWorld(seed uint64) *world {
	w := &world{
		seed:     seed,
		tries:    make(map[string]uint64),
		results:  make(map[string][]simResult),
		attempts: make(map[uint64][]apns.Attempt),
		handed:   make(map[string]bool),
		broken:   make(map[string]bool),
	}
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
	if !w.tracing {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trace = append(w.trace, fmt.Sprintf("%014d ", time.Since(w.start))+fmt.Sprintf(format, args...))
}

func (w *world) run(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if w.tls {
			cryptotest.SetGlobalRandom(t, w.seed) // signatures differ in size
		}
		w.start = time.Now()
		w.simulate()
		time.Sleep(time.Second) // goroutines that are left after that fail the test
		w.check(t)
	})
}

func (w *world) simulate() {
	w.server = apnstest.NewUnstartedServer(w.handle)
	w.server.InMemory = true
	w.server.BufferSize = 1 << (8 + w.pick(8, "buffer"))
	w.server.StreamLimit = 1 + int(w.pick(30, "streams"))
	if w.chance(0.2, "small windows") {
		w.server.HTTP2.InitialWindow = 1 + int(w.pick(500, "small window"))
	}
	switch {
	case w.chance(0.1, "barrier without ID"):
		w.server.Barrier = &apns.PushError{Status: apns.StatusMissingToken}
	case !w.talking && w.chance(0.15, "no barrier"):
		w.server.Barrier = apns.StatusNoError
	case !w.talking && w.chance(0.15, "barrier's end"):
		w.server.Barrier = apnstest.Fault{Err: apns.StatusMissingToken, Delay: 1, Cut: int(w.pick(7, "barrier's cut")), End: apnstest.End(w.pick(6, "barrier's end"))}
	}
	w.server.Start()
	defer w.server.Close()
	w.client = w.newClient()
	ctx := context.Background()
	var callers sync.WaitGroup
	for i := range int(w.pick(3, "pushAlls")) {
		callers.Go(func() { w.pushAll(ctx, i) })
	}
	for i := range int(w.pick(20, "pushers")) {
		callers.Go(func() { w.pushMany(ctx, i) })
	}
	quit := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() { w.watchStats(quit) })
	if w.http2 {
		others.Go(func() { w.changeSettings(quit) })
	}
	if !w.talking && w.chance(0.1, "close") {
		others.Go(func() {
			w.sleep(actorClose, w.duration(10*time.Second, "close at"))
			w.log("Close")
			w.client.Close()
		})
	}
	if w.chance(0.1, "shutdown early") {
		w.sleep(actorMain, w.duration(5*time.Second, "shutdown at"))
	} else {
		callers.Wait()
		w.sleep(actorMain, 1)
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
	w.sleep(actorMain, 1)
}

func (w *world) newClient() *apns.Client {
	config := w.server.Config()
	if w.tls && w.http2 && w.chance(0.5, "key") {
		config = w.server.TokenConfig()
	}
	config.DialContext = w.dialer(config.DialContext)
	c := &apns.Client{
		Addr:            "gateway.example.com:2195",
		Config:          config,
		Timeout:         time.Minute,
		Attempts:        1 + int(w.pick(10, "attempts")),
		InDoubt:         simPolicies[w.pick(uint64(len(simPolicies)), "in doubt")],
		MaxInFlight:     1 + int(w.pick(1<<w.pick(10, "window's size"), "window")),
		MaxConns:        1 + int(w.pick(4, "connections")),
		ConfirmInterval: 1 + w.duration(3*time.Second, "confirm"),
		OnAttempt:       w.attempted,
	}
	if w.http2 {
		c.Addr = apns.Production
		w.tally.HTTP2++
	}
	if w.tls {
		w.tally.TLS++
	}
	if w.talking {
		w.tally.Talking++
		c.Timeout = time.Hour
		c.Attempts = 1000
	} else if w.server.Barrier == apns.StatusNoError && w.chance(0.5, "assume accepted") {
		c.AssumeAcceptedAfter = time.Second + w.duration(5*time.Second, "assume accepted after")
	}
	return c
}

var simPolicies = []apns.InDoubtPolicy{apns.InDoubtReport, apns.InDoubtReport, apns.InDoubtResendCollapsible, apns.InDoubtResend, apns.InDoubtResend}

// mayResend reports whether a message may be resent although it is in doubt.
func (w *world) mayResend(token string) bool {
	switch w.client.InDoubt {
	case apns.InDoubtResend:
		return true
	case apns.InDoubtResendCollapsible:
		return w.http2 && w.collapses(token)
	}
	return false
}

func (w *world) collapses(token string) bool { return w.chance(0.5, "collapses", token) }

// watchStats looks at the Client's figures now and then.
func (w *world) watchStats(quit <-chan struct{}) {
	for i := 0; w.chance(0.9, "look", i); i++ {
		t := time.NewTimer(w.until(actorStats, w.duration(200*time.Millisecond, "look at", i)))
		defer t.Stop()
		select {
		case <-t.C:
			n := w.client.Stats().InFlight
			w.mu.Lock()
			w.maxInFlight = max(w.maxInFlight, n)
			w.mu.Unlock()
		case <-quit:
			return
		}
	}
}

// changeSettings changes the server's stream limit, or its initial window, now and then.
func (w *world) changeSettings(quit <-chan struct{}) {
	for i := 0; w.chance(0.7, "change", i); i++ {
		t := time.NewTimer(w.until(actorSettings, w.duration(time.Second, "change at", i)))
		defer t.Stop()
		select {
		case <-t.C:
			if w.chance(0.2, "window changes", i) {
				w.server.SetInitialWindow(1 + int(w.pick(1<<w.pick(16, "window's size", i), "window", i)))
			} else {
				w.server.SetStreamLimit(1 + int(w.pick(1<<w.pick(6, "limit's size", i), "limit", i)))
			}
		case <-quit:
			return
		}
	}
}

// simToken returns the token of a message. Whether the message is bad depends on its
// token alone.
func (w *world) simToken(caller, i int) (token string, bad bool) {
	return fmt.Sprintf("%04x%08x", caller, i), w.chance(0.02, "bad", caller, i)
}

func (w *world) message(caller, i int) *apns.Message {
	token, _ := w.simToken(caller, i)
	m := &apns.Message{ID: uint32(caller<<16 | i), Token: token, Payload: apns.AlertPayload(strings.Repeat("x", int(w.pick(300, "size", caller, i))))}
	m.Topic = apnstest.BundleID
	if w.collapses(token) {
		m.CollapseID = token
	}
	if !w.talking && w.chance(0.1, "expires", caller, i) {
		m.Expiry = time.Now().Add(w.duration(10*time.Second, "expires after", caller, i))
	}
	if w.chance(0.3, "priority", caller, i) {
		m.Priority = apns.PriorityImmediate
	}
	if w.chance(0.01, "broken", caller, i) {
		m.Payload = nil // breaks a rule
	}
	return m
}

func (w *world) pushAll(ctx context.Context, caller int) {
	feeder, loop := actorsFeeder+caller, actorsLoop+caller
	n := int(w.pick(1<<w.pick(10, "pushAll's size", caller), "pushAll", caller))
	var tokens []string
	msgs := func(yield func(*apns.Message) bool) {
		for i := range n {
			pause := time.Duration(1)
			if w.chance(0.02, "slow", caller, i) {
				pause = w.duration(2*time.Second, "slow for", caller, i)
			}
			w.sleep(feeder, pause)
			m := w.message(caller, i)
			w.mu.Lock()
			w.handed[m.Token] = true
			tokens = append(tokens, m.Token)
			w.mu.Unlock()
			if !yield(m) {
				break
			}
		}
		w.sleep(feeder, 1)
	}
	breakAt := -1
	if !w.talking && w.chance(0.3, "cancels", caller) {
		if w.chance(0.5, "breaks off", caller) {
			breakAt = int(w.pick(uint64(n)+1, "breaks off at", caller))
		} else {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, w.until(actorsContext+caller, w.duration(20*time.Second, "cancels after", caller)))
			defer cancel()
		}
	}
	w.sleep(loop, 1)
	results := 0
	for r := range w.client.PushAll(ctx, iter.Seq[*apns.Message](msgs)) {
		w.result(r.Message.Token, r.Err, r.Message.ID)
		if results == breakAt {
			w.sleep(loop, 1)
			break
		}
		switch results++; {
		case results == n:
			w.sleep(loop, 1)
		case w.chance(0.02, "slow to read", caller, results):
			w.sleep(loop, w.duration(2*time.Second, "slow to read for", caller, results))
		}
	}
	if results == breakAt {
		w.mu.Lock()
		for _, token := range tokens {
			w.broken[token] = true
		}
		w.mu.Unlock()
	}
	w.log("PushAll %d is done, %d results", caller, results)
}

func (w *world) pushMany(ctx context.Context, pusher int) {
	caller := 100 + pusher
	w.sleep(actorsPusher+pusher, w.duration(3*time.Second, "begins", caller))
	for i := range int(w.pick(10, "pushes", caller)) {
		ctx, cancel := context.WithCancel(ctx)
		if !w.talking && w.chance(0.2, "deadline", caller, i) {
			cancel()
			ctx, cancel = context.WithTimeout(context.Background(), w.until(actorsDeadline+pusher, w.duration(20*time.Second, "deadline after", caller, i)))
		}
		m := w.message(caller, i)
		w.mu.Lock()
		w.handed[m.Token] = true
		w.mu.Unlock()
		w.sleep(actorsPusher+pusher, w.duration(time.Microsecond, "pauses", caller, i))
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
	w.results[token] = append(w.results[token], simResult{time.Since(w.start), err})
}

func (w *world) attempted(_ context.Context, a apns.Attempt) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.attempts[a.Conn] = append(w.attempts[a.Conn], a)
}

// handle decides what the server does with a message.
func (w *world) handle(m *apns.Message) error {
	w.mu.Lock()
	w.tries[m.Token]++
	try := w.tries[m.Token]
	w.mu.Unlock()
	w.sleep(actorHandler, w.duration(10*time.Microsecond, "takes", m.Token, try))
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
		err = w.http2Fault(err, pick)
	default:
		err = w.binaryFault(err, pick)
	}
	w.log("server: %s, time %d: %v", m.Token, try, err)
	return err
}

// delay returns a delay of a fault. It is never 0: a server that ends a connection at the
// instant at which it read a message may or may not have read more.
func (w *world) delay(most time.Duration, pick func(uint64, string) uint64) time.Duration {
	return w.until(actorFault, time.Duration(pick(uint64(most), "delay")))
}

// binaryFault is a fault on the binary protocol.
func (w *world) binaryFault(err error, pick func(uint64, string) uint64) error {
	f := apnstest.Fault{Err: err, Split: int(pick(4, "split")), Delay: w.delay(1, pick)}
	if pick(2, "delayed") == 0 {
		f.Delay = w.delay(time.Second, pick)
	}
	if err == nil {
		f.Err = apns.StatusShutdown // which accepts it
	}
	if w.talking {
		f.End = apnstest.End(pick(3, "end")) // all of which let the packet be read
		return f
	}
	f.End = apnstest.End(pick(6, "end"))
	switch pick(6, "kind") {
	case 0: // with the packet, unless a reset overtakes it
	case 1:
		f.Err = nil // discarded
	case 2:
		if err == nil {
			f.Err = apns.StatusNoError // accepted
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

// http2Fault is a fault over HTTP/2.
func (w *world) http2Fault(err error, pick func(uint64, string) uint64) error {
	f := apnstest.Fault{Err: err, Delay: w.delay(5*time.Second, pick), Reason: apns.ReasonShutdown}
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
		w.sleep(actorDial, w.duration(50*time.Millisecond, "dial takes", number))
		if err := ctx.Err(); err != nil {
			return nil, &net.OpError{Op: "dial", Err: err}
		}
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
		c := newSimConn(raw, w, number)
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

// account returns what a world did: a line for each outcome, each attempt and each record
// of the server.
func (w *world) account() []string {
	var lines []string
	for _, token := range slices.Sorted(maps.Keys(w.handed)) {
		lines = append(lines, fmt.Sprintf("message %s, read %d times", token, w.tries[token]))
		for _, r := range w.results[token] {
			lines = append(lines, fmt.Sprintf("message %s at %v: %v", token, r.at, r.err))
		}
	}
	for _, conn := range slices.Sorted(maps.Keys(w.attempts)) {
		for _, a := range w.attempts[conn] {
			lines = append(lines, fmt.Sprintf("connection %d, attempt %d, sent at %v, after %v: %v", conn, a.Number, a.Sent.Sub(w.start), a.Latency, a.Err))
		}
	}
	records := make(map[int][]string)
	for _, r := range w.server.Records() {
		records[r.Conn] = append(records[r.Conn], fmt.Sprintf("server's connection %d: %s %v: %v", r.Conn, r.Message.Token, r.Outcome, r.Err))
	}
	for _, conn := range slices.Sorted(maps.Keys(records)) {
		lines = append(lines, records[conn]...)
	}
	return append(lines, fmt.Sprintf("%+v", w.client.Stats()))
}

// check compares the outcomes with what the server did.
func (w *world) check(t *testing.T) {
	w.tally.Worlds++
	accepted, rejected := make(map[string]int), make(map[string]int)
	for _, r := range w.server.Records() {
		switch r.Outcome {
		case apnstest.Accepted:
			accepted[r.Message.Token]++
		case apnstest.Rejected:
			rejected[r.Message.Token]++
		}
	}
	tokens := slices.Sorted(maps.Keys(w.handed))
	for _, token := range tokens {
		if fault := w.checkMessage(token, accepted[token], rejected[token]); fault != "" {
			t.Errorf("seed %d, HTTP/2 %v, talking %v, message %s: %s; the server accepted it %d times, rejected it %d times; results %v",
				w.seed, w.http2, w.talking, token, fault, accepted[token], rejected[token], w.results[token])
		}
	}
	if len(w.broken) == 0 {
		for token := range w.results {
			if !w.handed[token] {
				t.Errorf("seed %d, message %s: a result, and it was not handed over", w.seed, token)
			}
		}
	}
	w.checkStats(t, len(tokens))
	w.checkAttempts(t)
	most := time.Hour
	if !w.talking {
		most += time.Duration(len(tokens)) * 2 * w.client.Timeout
	}
	if took := time.Since(w.start); took > most {
		t.Errorf("seed %d: it took %v, want an end before %v", w.seed, took, most)
	}
}

// checkMessage returns what is wrong with the outcome of a message that the server has
// accepted and rejected so many times.
func (w *world) checkMessage(token string, accepted, rejected int) string {
	results := w.results[token]
	if len(results) == 0 && w.broken[token] {
		w.tally.Abandoned++
		return ""
	}
	if len(results) != 1 {
		return fmt.Sprintf("it has %d outcomes, want 1", len(results))
	}
	if accepted > 1 {
		w.tally.Twice++
		if !w.mayResend(token) || w.talking {
			return "accepted twice"
		}
	}
	err := results[0].err
	said, isRejected := errors.AsType[*apns.PushError](err)
	kinds := 0
	for _, is := range []bool{isRejected, errors.Is(err, apns.ErrNotSent), errors.Is(err, apns.ErrInDoubt), errors.Is(err, apns.ErrInvalid), errors.Is(err, apns.ErrExpired)} {
		if is {
			kinds++
		}
	}
	switch {
	case err == nil:
		w.tally.Accepted++
		if accepted == 0 && w.client.AssumeAcceptedAfter == 0 {
			return "accepted"
		}
	case strings.Contains(err.Error(), "WRONG ID"):
		return err.Error()
	case kinds != 1:
		return fmt.Sprintf("its error is of %d kinds, want 1", kinds)
	case isRejected:
		w.tally.Rejected++
		if rejected == 0 {
			return "rejected"
		}
		if !said.Rejected() {
			return "rejected by a server that accepted it"
		}
	case errors.Is(err, apns.ErrNotSent):
		w.tally.NotSent++
		if accepted > 0 {
			return "not sent"
		}
		if w.talking && !errors.Is(err, net.ErrClosed) {
			return "not sent, and nobody cancelled"
		}
	case errors.Is(err, apns.ErrInDoubt):
		w.tally.InDoubt++
		if w.talking {
			return "in doubt, and the server always said what it did"
		}
	case errors.Is(err, apns.ErrExpired):
		w.tally.Expired++
		if accepted > 0 {
			return "expired"
		}
	case errors.Is(err, apns.ErrInvalid):
		w.tally.Rejected++
		if accepted+rejected > 0 {
			return "broke a rule, and was sent"
		}
	}
	return ""
}

// checkStats compares the Client's figures with the number of messages.
func (w *world) checkStats(t *testing.T, messages int) {
	s := w.client.Stats()
	outcomes := s.Accepted + s.Invalid + s.Expired + s.NotSent + s.InDoubt
	for _, n := range s.Rejected {
		outcomes += n
	}
	if s.InFlight+s.Waiting != 0 || outcomes != uint64(messages) {
		t.Errorf("seed %d: stats %+v, want the outcomes of %d messages and nothing in flight", w.seed, s, messages)
	}
	if w.maxInFlight > uint64(w.client.MaxInFlight) {
		t.Errorf("seed %d: %d messages in flight, want at most %d", w.seed, w.maxInFlight, w.client.MaxInFlight)
	}
	w.tally.Resent += int(s.Resent)
	w.tally.Dials += int(s.Connected)
}

// checkAttempts compares what OnAttempt was told with the outcomes and the records.
func (w *world) checkAttempts(t *testing.T) {
	all, accepted := 0, uint64(0)
	for conn, attempts := range w.attempts {
		for _, a := range attempts {
			all++
			switch {
			case a.Err == nil:
				accepted++
			case strings.Contains(a.Err.Error(), "GOAWAY, ") && !strings.Contains(a.Err.Error(), "GOAWAY, NO_ERROR"):
				t.Errorf("seed %d, connection %d: %v, want no rule of HTTP/2 broken", w.seed, conn, a.Err)
			}
			if a.Number < 1 || a.Number > w.client.Attempts {
				t.Errorf("seed %d, connection %d: attempt %d, want 1 to %d", w.seed, conn, a.Number, w.client.Attempts)
			}
			if (a.Protocol == "h2") != w.http2 || a.Latency < 0 || a.Sent.Before(w.start) {
				t.Errorf("seed %d, connection %d: attempt %+v", w.seed, conn, a)
			}
		}
	}
	w.tally.Attempts += all
	if s := w.client.Stats(); accepted != s.Accepted {
		t.Errorf("seed %d: %d attempts were accepted, want %d as in the outcomes", w.seed, accepted, s.Accepted)
	}
	// On the binary protocol a message that is resent because of another one has no
	// attempt of its own.
	if n := len(w.server.Records()); w.http2 && all < n {
		t.Errorf("seed %d: %d attempts, want at least the %d that the server has read", w.seed, all, n)
	}
}
