package apns

import (
	"context"
	"iter"
	"net/http/httptrace"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// A batch is one call of PushAll. The goroutine that feeds it runs msgs, and the
// caller's yields the results. In between is a sender.
type batch struct {
	client  *Client
	ctx     context.Context // ends with the caller's, or when the loop does
	cancel  context.CancelFunc
	window  int64
	sender  sender         // nil while it is not known; of the goroutine that feeds
	running sync.WaitGroup // of all goroutines but the caller's

	pulled  int64        // messages from msgs; of the goroutine that feeds, up to fed
	yielded atomic.Int64 // results; of the caller's
	blocked atomic.Bool  // the goroutine that feeds waits for room
	stopped atomic.Bool  // nothing more shall come

	mu       sync.Mutex // protects following
	room     sync.Cond  // of mu: something was yielded, or the batch ends
	news     sync.Cond  // of mu: there are results, or no more to come
	results  []result
	fed      bool // nothing more comes from msgs
	panicked bool // msgs did, or ended its goroutine
	reason   any  // with what it panicked

	early    early
	deadline sharedDeadline
	workers  workers // over HTTP/2
	whole    bool    // over the binary wire: all is handed over; protected by line.mu
	ring     ring    // over the binary wire
}

// A result is the fate of messages that have the same.
type result struct {
	entries []entry
	owner   *line    // unless nil: to have the entries back
	m       *Message // where there are no entries
	receipt Receipt
	err     error
}

func newBatch(ctx context.Context, c *Client) *batch {
	b := &batch{client: c, window: int64(c.window())}
	b.ctx, b.cancel = context.WithCancel(ctx)
	b.room.L, b.news.L = &b.mu, &b.mu
	b.workers.more.L, b.workers.fewer.L = &b.workers.mu, &b.workers.mu
	return b
}

// run sends the messages and yields the results.
func (b *batch) run(msgs iter.Seq[*Message], yield func(Result) bool) {
	given := make(chan struct{})
	context.AfterFunc(b.ctx, func() {
		defer close(given)
		b.giveUp()
	})
	defer func() {
		b.cancel()
		<-given
		b.running.Wait()
		switch {
		case !b.panicked:
		case b.reason == nil:
			runtime.Goexit() // as msgs did
		default:
			panic(b.reason)
		}
	}()
	if b.ctx.Err() != nil {
		return
	}
	b.running.Go(func() { b.feed(msgs) })
	var spare []result // to be used again
	var one [1]entry
	for {
		results, ok := b.next(spare)
		if !ok {
			return
		}
		count := 0
		for i := range results {
			r := &results[i]
			entries := r.entries
			if entries == nil {
				one[0].m = r.m
				entries = one[:]
			}
			for i := range entries {
				if !yield(Result{entries[i].m, r.receipt, r.err}) {
					return
				}
				// Not at each one, for the sake of those that are yielded by the
				// thousand.
				if count++; count == 256 {
					b.makeRoom(count)
					count = 0
				}
			}
			if r.owner != nil {
				r.owner.recycle(r.entries)
			}
		}
		b.makeRoom(count)
		clear(results)
		spare = results[:0]
	}
}

// next waits for results, and takes all that there are. It leaves a slice for the
// next ones.
func (b *batch) next(spare []result) ([]result, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.results) == 0 {
		if b.panicked || b.fed && b.yielded.Load() == b.pulled {
			return nil, false
		}
		b.news.Wait()
		if len(b.results) == 1 { // more are likely to come at once
			b.mu.Unlock()
			runtime.Gosched()
			b.mu.Lock()
		}
	}
	results := b.results
	b.results = spare
	return results, true
}

// makeRoom notes that results were yielded.
func (b *batch) makeRoom(n int) {
	b.yielded.Add(int64(n))
	if b.blocked.Load() {
		b.mu.Lock()
		b.room.Signal()
		b.mu.Unlock()
	}
}

// feed hands over the messages.
func (b *batch) feed(msgs iter.Seq[*Message]) {
	whole := false
	defer func() {
		reason := recover()
		b.mu.Lock()
		b.fed = true
		b.panicked, b.reason = !whole, reason
		b.news.Signal()
		b.mu.Unlock()
		if b.sender != nil || b.early.end(b) {
			b.sender.fed(b)
		}
	}()
	for m := range msgs {
		if !b.hand(m) {
			break
		}
	}
	whole = true
}

// hand hands over one message, and waits until there is room for another. It is
// false if no more shall come.
func (b *batch) hand(m *Message) bool {
	b.pulled++
	switch {
	case m == nil:
		b.client.handed.Add(1)
		b.fail(m, errNoMessage)
	case b.sender != nil || b.early.hold(b, m):
		b.sender.submit(b, m)
	}
	if b.pulled-b.yielded.Load() >= b.window {
		b.mu.Lock()
		b.blocked.Store(true)
		for !b.stopped.Load() && b.pulled-b.yielded.Load() >= b.window {
			b.room.Wait()
		}
		b.blocked.Store(false)
		b.mu.Unlock()
	}
	return !b.stopped.Load()
}

// fail gives a message its fate before a sender has had it.
func (b *batch) fail(m *Message, err error) {
	b.client.settle(1, err)
	b.settledOne(m, Receipt{}, err)
}

// An early batch has messages, and it is not known yet who sends them.
type early struct {
	mu       sync.Mutex // protects following
	messages queue[earlyMessage]
	finding  bool   // a goroutine waits for the sender
	sender   sender // once it is known
	ended    bool   // nothing more comes from msgs
}

type earlyMessage struct {
	m   *Message
	end time.Time // of its time
}

// hold keeps a message until it is known who sends it. If that is known, it sets
// b.sender instead and is true.
func (e *early) hold(b *batch, m *Message) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.sender != nil {
		b.sender = e.sender
		return true
	}
	b.client.handed.Add(1)
	if b.client.closing.Load() {
		b.fail(m, errClientClosed(ErrNotSent))
		return false
	}
	e.messages.push(earlyMessage{m, time.Now().Add(b.client.timeout())})
	if !e.finding {
		e.finding = true
		b.running.Go(func() { e.find(b) })
	}
	return false
}

// end notes that no more messages come. It is true if b.sender is to be told.
func (e *early) end(b *batch) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	b.sender, e.ended = e.sender, true
	return e.sender != nil
}

// find waits until it is known who sends, as long as there are messages.
func (e *early) find(b *batch) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.messages.n > 0 {
		ctx, cancel := context.WithDeadline(b.ctx, e.messages.at(0).end)
		e.mu.Unlock()
		s, err := b.client.findOut(ctx)
		timedOut := ctx.Err() == context.DeadlineExceeded && b.ctx.Err() == nil
		cancel()
		e.mu.Lock()
		if err == nil {
			s.feeds(b)
			for e.messages.n > 0 {
				m := e.messages.pop().m
				e.mu.Unlock() // it may have to wait for room
				s.accept(b, m)
				e.mu.Lock()
			}
			e.sender = s
			if e.ended {
				s.fed(b)
			}
			return
		}
		for e.messages.n > 0 && (!timedOut || !time.Now().Before(e.messages.at(0).end)) {
			b.fail(e.messages.pop().m, err)
		}
	}
	e.finding = false
}

// giveUp ends what is outstanding.
func (b *batch) giveUp() {
	b.mu.Lock()
	b.stopped.Store(true)
	b.room.Signal()
	b.mu.Unlock()
	if s := b.client.route.Load(); s != nil {
		(*s).giveUp(b, b.ctx.Err())
	}
}

// settled takes results to be yielded.
func (b *batch) settled(entries []entry, owner *line, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.results = append(b.results, result{entries: entries, owner: owner, err: err})
	b.news.Signal()
}

// settledOne takes a result that one message has.
func (b *batch) settledOne(m *Message, r Receipt, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.results = append(b.results, result{m: m, receipt: r, err: err})
	b.news.Signal()
}

// A sharedDeadline gives contexts that end after a timeout. Those that have the same
// parent and begin at about the same time share one, because to make one costs
// about as much as all else that a Client does for a message over HTTP/2.
type sharedDeadline struct {
	mu     sync.Mutex // protects following
	parent context.Context
	shared context.Context // nil if the parent was seen but once
	cancel context.CancelFunc
	until  time.Time // when it is too late to share it
}

// context returns a context that ends after the timeout, or up to a sixteenth of
// it later, and a function to be called when it is not needed any more.
func (d *sharedDeadline) context(parent context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.parent == nil || !isSame(d.parent, parent) {
		d.parent, d.shared = parent, nil
		return context.WithTimeout(parent, timeout)
	}
	if now := time.Now(); d.shared == nil || now.After(d.until) {
		// The one before ends by itself: who uses it is not known.
		d.shared, d.cancel = context.WithTimeout(parent, timeout+timeout/16)
		d.until = now.Add(timeout / 16)
	}
	return d.shared, func() {}
}

// isSame reports whether two contexts are the same to net/http.
func isSame(a, b context.Context) bool {
	return a.Done() == b.Done() && httptrace.ContextClientTrace(a) == httptrace.ContextClientTrace(b)
}
