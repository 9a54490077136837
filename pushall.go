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
// own, the producer, which runs msgs and stages the messages. A session takes all staged
// messages together. The caller's goroutine yields the results.
type pushAll struct {
	d      *dispatcher
	caller context.Context
	ctx    context.Context // ends with the caller's, or when the loop does
	cancel context.CancelFunc
	most   int64 // messages between msgs and the loop

	pulled   int64        // messages from msgs; the producer's, until it has ended
	yielded  atomic.Int64 // results
	backOffs atomic.Int64 // messages that back off
	paused   atomic.Bool  // the producer waits for room
	stopped  atomic.Bool  // the context or the loop has ended: what is staged is not sent
	flushing bool         // the producer has handed over its last message; protected by dispatcher.mu

	mu       sync.Mutex // protects following; taken after dispatcher.mu
	staged   list       // what the dispatcher has yet to take
	isStaged bool       // the dispatcher knows that there is something
	results  list       // what is to be yielded
	reported int64      // deliveries that have been among them
	news     sync.Cond  // of mu: there are results, or there will be no more
	unused   list       // deliveries to be used again
	slab     []delivery // those that were not used yet
	produced bool       // the producer has ended
	panicked bool       // because msgs did, or ended its goroutine
	reason   any        // with what it panicked
}

func newPushAll(ctx context.Context, d *dispatcher) *pushAll {
	p := &pushAll{d: d, caller: ctx, most: int64(d.maxInFlight + d.maxWaiting())}
	p.ctx, p.cancel = context.WithCancel(ctx)
	p.news.L = &p.mu
	return p
}

// run sends the messages and yields the results.
func (p *pushAll) run(msgs iter.Seq[*Message], yield func(Result) bool) {
	if p.ctx.Err() != nil {
		p.cancel()
		return
	}
	p.d.mu.Lock()
	p.d.producing++
	p.d.unlock()
	abandoned := make(chan struct{})
	context.AfterFunc(p.ctx, func() {
		defer close(abandoned) // cancel leads here in any case: run waits for it
		p.abandon()
	})
	var producing sync.WaitGroup
	producing.Go(func() { p.produce(msgs) })
	defer func() {
		p.cancel()
		<-abandoned
		producing.Wait()
		p.close()
	}()
	for p.yield(p.next(), yield) {
	}
}

// close waits until no delivery is left, and passes on what msgs did. The producer has
// ended.
func (p *pushAll) close() {
	p.mu.Lock()
	for p.reported < p.pulled {
		p.news.Wait()
	}
	p.mu.Unlock()
	d := p.d
	d.mu.Lock()
	d.flushing--
	d.unlock()
	switch {
	case !p.panicked:
	case p.reason == nil:
		runtime.Goexit() // as msgs did
	default:
		panic(p.reason)
	}
}

// next waits for results, and takes all that there are. The list is empty if there will
// be no more.
func (p *pushAll) next() (results list) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.results.n == 0 && !p.panicked && !(p.produced && p.yielded.Load() == p.pulled) {
		p.news.Wait()
	}
	if !p.panicked {
		results.append(&p.results)
	}
	return results
}

// yield yields results. It returns false if there are none, or the caller has broken the
// loop.
func (p *pushAll) yield(results list, yield func(Result) bool) bool {
	if results.n == 0 {
		return false
	}
	step := max(1, p.most/8)
	count := int64(0)
	for r := results.first; r != nil; r = r.next {
		if !yield(Result{r.message, r.receipt, r.err}) {
			return false
		}
		if count++; count == step || r.next == nil {
			p.makeRoom(count)
			count = 0
		}
		r.reset()
	}
	p.mu.Lock()
	p.unused.append(&results)
	p.mu.Unlock()
	return true
}

// makeRoom notes that results were yielded, and wakes the producer if it waits. wait sets
// paused before it looks at yielded, and makeRoom changes yielded before it looks at paused:
// so one of the two notices.
func (p *pushAll) makeRoom(n int64) {
	p.yielded.Add(n)
	if p.paused.Load() {
		p.d.mu.Lock()
		p.d.queueRoom.Broadcast()
		p.d.unlock()
	}
}

// reset makes a delivery ready to be used again. It stays on its list.
func (r *delivery) reset() { *r = delivery{next: r.next, prev: r.prev, source: r.source} }

// The producer.

// produce stages the messages of msgs.
func (p *pushAll) produce(msgs iter.Seq[*Message]) {
	whole := false
	defer func() {
		reason := recover()
		p.d.mu.Lock()
		p.d.queueStagedLocked()
		p.flushing = true
		p.d.producing--
		p.d.flushing++
		for _, s := range p.d.sessions {
			s.wakeWriter() // the outcomes are wanted
		}
		p.d.unlock()
		p.mu.Lock()
		p.produced, p.panicked, p.reason = true, !whole, reason
		p.news.Signal()
		p.mu.Unlock()
	}()
	for m := range msgs {
		p.pulled++
		p.stage(m)
		if p.isFull() {
			p.wait()
		}
		if p.isStopped() {
			break
		}
	}
	whole = true
}

// stage adds a message to those that are staged. It tells the dispatcher only if there was
// none: the dispatcher takes all that follow with it. To take its lock for each message
// would cost more than to encode it.
func (p *pushAll) stage(m *Message) {
	checked, expires, err := p.d.checkMessage(m)
	p.mu.Lock()
	r := p.unused.pop()
	if r == nil {
		if len(p.slab) == 0 {
			p.slab = make([]delivery, 64)
		}
		r, p.slab = &p.slab[0], p.slab[1:]
		r.source = p
	}
	r.message, r.checked, r.expires, r.err = m, checked, expires, err
	p.d.waiting.Add(1)
	p.staged.push(r)
	first := !p.isStaged
	p.isStaged = true
	p.mu.Unlock()
	if first {
		p.d.noteStaged(p)
	}
}

// takeStaged takes what was staged.
func (p *pushAll) takeStaged() (staged list) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isStaged = false
	staged.append(&p.staged)
	if p.stopped.Load() {
		for r := staged.first; r != nil; r = r.next {
			r.err = cmp.Or(r.err, fmt.Errorf("%w: %w", ErrNotSent, p.ctx.Err()))
		}
	}
	return staged
}

// isStopped reports whether no more messages are to come from msgs.
func (p *pushAll) isStopped() bool { return p.stopped.Load() || p.d.isEnding() }

func (p *pushAll) isFull() bool {
	return p.d.waiting.Load()+p.backOffs.Load() >= int64(p.d.maxWaiting()) || p.pulled-p.yielded.Load() >= p.most
}

// wait waits until there is room for another message. queueRoom.Wait releases dispatcher.mu
// without unlock, so nothing must be finished here.
func (p *pushAll) wait() {
	p.d.mu.Lock()
	defer p.d.unlock()
	p.paused.Store(true)
	for p.isFull() && !p.isStopped() {
		p.d.queueRoom.Wait()
	}
	p.paused.Store(false)
}

// abandon ends all deliveries that have no outcome.
func (p *pushAll) abandon() {
	d := p.d
	d.mu.Lock()
	defer d.unlock()
	p.stopped.Store(true)
	d.queueStagedLocked()
	d.abandonSourceLocked(p, p.ctx.Err())
	d.queueRoom.Broadcast()
}

// The source.

func (p *pushAll) isFlushing() bool { return p.flushing }

func (p *pushAll) noteBackOffs(change int64) { p.backOffs.Add(change) }

func (p *pushAll) context() context.Context { return p.caller }

func (p *pushAll) report(finished list) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reported += int64(finished.n)
	p.results.append(&finished)
	p.news.Signal()
}
