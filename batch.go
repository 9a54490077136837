package apns

import (
	"context"
	"iter"
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
	crowded atomic.Bool  // enough waits to be written for now
	stopped atomic.Bool  // nothing more shall come

	mu       sync.Mutex // protects following
	room     sync.Cond  // of mu: something was yielded or written, or the batch ends
	news     sync.Cond  // of mu: there are results, or no more to come
	results  []result
	sheets   []*sheet // to be used again
	fed      bool     // nothing more comes from msgs
	panicked bool     // msgs did, or ended its goroutine
	reason   any      // with what it panicked

	early   early
	workers workers // over HTTP/2
	whole   bool    // over the binary wire: all is handed over; protected by line.mu
	sheet   *sheet  // over the binary wire; of the goroutine that feeds, which changes it under line.mu
}

// A result is the fate of messages that have the same.
type result struct {
	messages []*Message
	on       *sheet   // that they came on; or nil
	m        *Message // where there are no others
	receipt  Receipt
	err      error
}

func newBatch(ctx context.Context, c *Client) *batch {
	b := &batch{client: c, window: int64(c.window())}
	b.ctx, b.cancel = context.WithCancel(ctx)
	b.room.L, b.news.L = &b.mu, &b.mu
	b.early.room.L = &b.early.mu
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
	var one [1]*Message
	step := max(1, int(b.window)/8)
	for {
		results, ok := b.next(spare)
		if !ok {
			return
		}
		count := 0
		for i := range results {
			r := &results[i]
			messages := r.messages
			if messages == nil {
				one[0] = r.m
				messages = one[:]
			}
			for _, m := range messages {
				if !yield(Result{m, r.receipt, r.err}) {
					return
				}
				// Not at each one, for the sake of those that are yielded by the
				// thousand.
				if count++; count == step {
					b.makeRoom(count)
					count = 0
				}
			}
			if r.on != nil {
				b.recycle(r.on, len(messages))
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

// recycle notes that so many of the messages on a sheet were yielded.
func (b *batch) recycle(s *sheet, n int) {
	if s.yielded += n; s.yielded < len(s.messages) {
		return
	}
	*s = sheet{}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sheets = append(b.sheets, s)
}

// newSheet returns an empty sheet.
func (b *batch) newSheet() *sheet {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.sheets)
	if n == 0 {
		return new(sheet)
	}
	s := b.sheets[n-1]
	b.sheets = b.sheets[:n-1]
	return s
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
	if b.isFull() {
		b.mu.Lock()
		b.blocked.Store(true)
		for !b.stopped.Load() && b.isFull() {
			b.room.Wait()
		}
		b.blocked.Store(false)
		b.mu.Unlock()
	}
	return !b.stopped.Load()
}

func (b *batch) isFull() bool { return b.crowded.Load() || b.pulled-b.yielded.Load() >= b.window }

// fail gives a message its fate before a sender has had it.
func (b *batch) fail(m *Message, err error) {
	b.client.settle(1, err)
	b.settledOne(m, Receipt{}, err)
}

// An early batch has messages, and it is not known yet who sends them.
type early struct {
	mu       sync.Mutex // protects following
	room     sync.Cond  // of mu: there are fewer messages, or the sender is known, or the batch ends
	messages []handed
	finding  bool   // a goroutine waits for the sender
	sender   sender // once it is known
	ended    bool   // nothing more comes from msgs
}

// maxEarly is how many messages may wait for the sender. It can take as many
// without a wait.
const maxEarly = maxAhead / 2

// A handed message is one that has begun to take its time.
type handed struct {
	m   *Message
	end time.Time // when its time ends
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
	e.messages = append(e.messages, handed{m, time.Now().Add(b.client.timeout())})
	if !e.finding {
		e.finding = true
		b.running.Go(func() { e.find(b) })
	}
	for len(e.messages) >= maxEarly && e.sender == nil && !b.stopped.Load() {
		e.room.Wait()
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
	for len(e.messages) > 0 {
		ctx, cancel := context.WithDeadline(b.ctx, e.messages[0].end)
		e.mu.Unlock()
		s, err := b.client.findOut(ctx)
		timedOut := ctx.Err() == context.DeadlineExceeded && b.ctx.Err() == nil
		cancel()
		e.mu.Lock()
		if err == nil {
			s.feeds(b)
			s.accept(b, e.messages...)
			e.messages, e.sender = nil, s
			e.room.Broadcast()
			if e.ended {
				s.fed(b)
			}
			return
		}
		for len(e.messages) > 0 && (!timedOut || !time.Now().Before(e.messages[0].end)) {
			b.fail(e.messages[0].m, err)
			e.messages = e.messages[1:]
		}
		e.room.Broadcast()
	}
	e.finding = false
}

// giveUp ends what is outstanding.
func (b *batch) giveUp() {
	b.mu.Lock()
	b.stopped.Store(true)
	b.room.Signal()
	b.mu.Unlock()
	b.early.mu.Lock()
	b.early.room.Broadcast()
	b.early.mu.Unlock()
	if s := b.client.route.Load(); s != nil {
		(*s).giveUp(b, b.ctx.Err())
	}
}

// settled takes results to be yielded.
func (b *batch) settled(messages []*Message, on *sheet, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.results = append(b.results, result{messages: messages, on: on, err: err})
	b.news.Signal()
}

// settledOne takes a result that one message has.
func (b *batch) settledOne(m *Message, r Receipt, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.results = append(b.results, result{m: m, receipt: r, err: err})
	b.news.Signal()
}
