package apns

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"runtime"
	"sync"
	"sync/atomic"
)

// A pushAll is one call of PushAll: a source of many messages. It has a goroutine of its
// own, the feeder, which runs msgs and stages the messages. A session takes all staged
// messages together. The caller's goroutine yields the results.
type pushAll struct {
	d      *dispatcher
	caller context.Context
	ctx    context.Context // ends with the caller's, or when the loop does
	cancel context.CancelFunc
	most   int64 // messages between msgs and the loop

	pulled  int64        // messages from msgs; the feeder's, until it has ended
	yielded atomic.Int64 // results
	paused  atomic.Bool  // the feeder waits for room
	stopped atomic.Bool  // no more messages are to come
	ended   bool         // the feeder has handed over its last message; protected by dispatcher.mu

	mu       sync.Mutex // protects following; taken after dispatcher.mu
	staged   list       // what the dispatcher has yet to take
	isStaged bool       // the dispatcher knows that there is something
	results  list       // what is to be yielded
	reported int64      // deliveries that have been among them
	news     sync.Cond  // of mu: there are results, or there will be no more
	unused   list       // deliveries to be used again
	slab     []delivery // those that were not used yet
	fed      bool       // the feeder has ended
	panicked bool       // because msgs did, or ended its goroutine
	reason   any        // with what it panicked
}

func newPushAll(ctx context.Context, d *dispatcher) *pushAll {
	b := &pushAll{d: d, caller: ctx, most: int64(d.maxInFlight + d.maxWaiting())}
	b.ctx, b.cancel = context.WithCancel(ctx)
	b.news.L = &b.mu
	return b
}

// run sends the messages and yields the results.
func (b *pushAll) run(msgs iter.Seq[*Message], yield func(Result) bool) {
	if b.ctx.Err() != nil {
		b.cancel()
		return
	}
	b.d.mu.Lock()
	b.d.feeding++
	b.d.unlock()
	abandoned := make(chan struct{})
	context.AfterFunc(b.ctx, func() {
		defer close(abandoned)
		b.abandon()
	})
	var feeding sync.WaitGroup
	feeding.Go(func() { b.feed(msgs) })
	defer func() {
		b.cancel()
		<-abandoned
		feeding.Wait()
		b.close()
	}()
	for b.yield(b.next(), yield) {
	}
}

// close waits until no delivery is left, and passes on what msgs did. The feeder has
// ended.
func (b *pushAll) close() {
	b.mu.Lock()
	for b.reported < b.pulled {
		b.news.Wait()
	}
	b.mu.Unlock()
	d := b.d
	d.mu.Lock()
	d.complete--
	d.unlock()
	switch {
	case !b.panicked:
	case b.reason == nil:
		runtime.Goexit() // as msgs did
	default:
		panic(b.reason)
	}
}

// next waits for results, and takes all that there are. The list is empty if there will
// be no more.
func (b *pushAll) next() (results list) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.results.n == 0 && !b.panicked && !(b.fed && b.yielded.Load() == b.pulled) {
		b.news.Wait()
	}
	if !b.panicked {
		results.append(&b.results)
	}
	return results
}

// yield yields results. It is false if the loop has ended.
func (b *pushAll) yield(results list, yield func(Result) bool) bool {
	if results.n == 0 {
		return false
	}
	step := max(1, b.most/8)
	count := int64(0)
	for r := results.first; r != nil; r = r.next {
		if !yield(Result{r.message, r.receipt, r.err}) {
			return false
		}
		if count++; count == step || r.next == nil {
			b.makeRoom(count)
			count = 0
		}
		r.reset()
	}
	b.mu.Lock()
	b.unused.append(&results)
	b.mu.Unlock()
	return true
}

// makeRoom notes that results were yielded.
func (b *pushAll) makeRoom(n int64) {
	b.yielded.Add(n)
	if b.paused.Load() {
		b.d.mu.Lock()
		b.d.room.Broadcast()
		b.d.unlock()
	}
}

// reset makes a delivery ready to be used again. It stays on its list.
func (r *delivery) reset() { *r = delivery{next: r.next, prev: r.prev, source: r.source} }

// The feeder.

// feed hands over the messages.
func (b *pushAll) feed(msgs iter.Seq[*Message]) {
	whole := false
	defer func() {
		reason := recover()
		b.d.mu.Lock()
		b.d.stageLocked()
		b.ended = true
		b.d.feeding--
		b.d.complete++
		for _, s := range b.d.sessions {
			s.wakeWriter() // the outcomes are wanted
		}
		b.d.unlock()
		b.mu.Lock()
		b.fed, b.panicked, b.reason = true, !whole, reason
		b.news.Signal()
		b.mu.Unlock()
	}()
	for m := range msgs {
		b.pulled++
		b.stage(m)
		if b.isFull() {
			b.wait()
		}
		if b.stopped.Load() {
			break
		}
	}
	whole = true
}

// stage hands over a message. The dispatcher is told of the first one, and finds those
// that follow before it looks: to take its lock for each would cost more than to encode
// it.
func (b *pushAll) stage(m *Message) {
	checked, err := b.d.checkMessage(m)
	b.mu.Lock()
	r := b.unused.pop()
	if r == nil {
		if len(b.slab) == 0 {
			b.slab = make([]delivery, 64)
		}
		r, b.slab = &b.slab[0], b.slab[1:]
		r.source = b
	}
	r.message, r.checked, r.err = m, checked, err
	b.d.waiting.Add(1)
	b.staged.push(r)
	first := !b.isStaged
	b.isStaged = true
	b.mu.Unlock()
	if first {
		b.d.stage(b)
	}
}

// takeStaged takes what was staged.
func (b *pushAll) takeStaged() (staged list) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.isStaged = false
	staged.append(&b.staged)
	if b.stopped.Load() {
		for r := staged.first; r != nil; r = r.next {
			r.err = cmp.Or(r.err, fmt.Errorf("%w: %w", ErrNotSent, b.ctx.Err()))
		}
	}
	return staged
}

func (b *pushAll) isFull() bool {
	return b.d.waiting.Load() >= int64(b.d.maxWaiting()) || b.pulled-b.yielded.Load() >= b.most
}

// wait waits until there is room for another message.
func (b *pushAll) wait() {
	b.d.mu.Lock()
	defer b.d.unlock()
	b.paused.Store(true)
	for b.isFull() && !b.stopped.Load() {
		b.d.room.Wait()
	}
	b.paused.Store(false)
}

// abandon ends all deliveries that have no outcome.
func (b *pushAll) abandon() {
	d := b.d
	d.mu.Lock()
	defer d.unlock()
	b.stopped.Store(true)
	d.stageLocked()
	d.abandonSourceLocked(b, b.ctx.Err())
	d.room.Broadcast()
}

// The source.

func (b *pushAll) isComplete() bool { return b.ended }

func (b *pushAll) context() context.Context { return b.caller }

func (b *pushAll) report(finished list) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reported += int64(finished.n)
	b.results.append(&finished)
	b.news.Signal()
}
