package apns

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A pool sends messages over HTTP/2, each on a stream of a connection
// that has one free. While none has, it may open another connection.
type pool struct {
	client *Client

	streams atomic.Int64 // how many messages may be on their way together, and one more if another connection may be of use

	mu         sync.Mutex // protects following
	members    []*member  // in the order in which they were opened
	waiting    list.List  // of chan stream: for a stream, in the order in which they came
	connecting bool
	timer      *time.Timer // for the connections that are idle
	closed     bool
}

// A member is a connection of a pool.
type member struct {
	conn    *Conn
	session *session
	inside  int       // messages on their way
	since   time.Time // when inside became 0
	peak    int       // the most streams that the server has allowed
	worked  bool      // it has settled a message
	retired bool      // it takes no more messages
}

// A stream is one that was reserved on a connection, or the reason why there is
// none.
type stream struct {
	on  *member
	err error
}

func newPool(c *Client) *pool { return &pool{client: c} }

// The verbs of a sender.

func (p *pool) push(ctx context.Context, m *Message) (Receipt, error) {
	return p.deliver(ctx, m, func(resting bool) {})
}

func (p *pool) feeds(*batch) {}

func (p *pool) submit(b *batch, m *Message) {
	p.client.handed.Add(1)
	if p.client.closing.Load() {
		b.fail(m, errClientClosed(ErrNotSent))
		return
	}
	p.accept(b, handed{m, time.Now().Add(p.client.timeout())})
}

func (p *pool) accept(b *batch, some ...handed) {
	w := &b.workers
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range some {
		w.queue.push(h)
		switch {
		case w.idle > 0:
			w.idle--
			w.more.Signal()
		default:
			p.hire(b)
		}
		for w.queue.n >= maxAhead && !b.stopped.Load() {
			w.fewer.Wait()
		}
	}
}

func (p *pool) fed(b *batch) {
	w := &b.workers
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fed = true
	w.more.Broadcast()
}

// giveUp has little to do: the contexts of the messages end by themselves.
func (p *pool) giveUp(of settler, _ error) {
	w := &of.(*batch).workers
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fewer.Signal()
}

func (p *pool) add(conn *Conn) bool {
	mem := &member{conn: conn, session: conn.http2}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return false
	}
	p.members = append(p.members, mem)
	p.idle(mem)
	p.mu.Unlock()
	mem.session.onChange(p.changed)
	p.changed() // for what happened before that
	return true
}

func (p *pool) hurry() {}

func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.refuse(net.ErrClosed)
	if p.timer != nil {
		p.timer.Stop()
	}
	var closing sync.WaitGroup
	for _, mem := range p.members {
		closing.Go(func() { mem.conn.Close() })
	}
	p.members = nil
	p.mu.Unlock()
	closing.Wait()
}

// Workers send the messages of a batch, one at a time each. There are as many as
// there are streams, and one more that waits for a stream as long as the pool may
// open another connection for it.
type workers struct {
	mu      sync.Mutex    // protects following
	more    sync.Cond     // of mu: there is a message, or nothing more to come
	fewer   sync.Cond     // of mu: there is room for a message
	queue   queue[handed] // what has no worker yet
	running int
	idle    int
	resting int // those that wait before they send a message again
	fed     bool
}

// maxAhead is how many messages may wait for a worker.
const maxAhead = 256

// hire has as many workers as there are messages that wait for one, and streams;
// the caller holds the mutex of the workers.
func (p *pool) hire(b *batch) {
	w := &b.workers
	for new := 0; new < w.queue.n && int64(w.running-w.resting) < max(1, p.streams.Load()); new++ {
		w.running++
		b.running.Go(func() { p.work(b) })
	}
}

// work sends messages of a batch to the end.
func (p *pool) work(b *batch) {
	w := &b.workers
	rest := func(resting bool) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !resting {
			w.resting--
			return
		}
		w.resting++
		p.hire(b) // somebody else is to send what waits
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for w.queue.n == 0 && !w.fed {
			w.idle++
			w.more.Wait()
		}
		if w.queue.n == 0 {
			w.running--
			return
		}
		h := w.queue.pop()
		if w.queue.n == maxAhead/2 {
			w.fewer.Signal()
		}
		if w.idle == 0 {
			p.hire(b) // since there may be more streams than there were
		}
		w.mu.Unlock()
		ctx, cancel := context.WithDeadline(b.ctx, h.end)
		r, err := p.deliver(ctx, h.m, rest)
		cancel()
		p.client.settle(1, err)
		b.settledOne(h.m, r, err)
		w.mu.Lock()
	}
}

// deliver sends a message until it has its fate. It says when it begins and ends
// to wait before it sends the message again.
func (p *pool) deliver(ctx context.Context, m *Message, rest func(resting bool)) (Receipt, error) {
	attempts := p.client.attempts()
	inDoubt := false
	for try := 1; ; try++ {
		mem, err := p.reserve(ctx)
		if err != nil {
			if inDoubt {
				err = &doubtError{err}
			}
			return Receipt{}, err
		}
		if try > 1 {
			p.client.resent(1)
		}
		r, err := mem.session.push(ctx, m, true)
		said, rejected := errors.AsType[*PushError](err)
		if refused, ok := errors.AsType[*refusedError](err); ok {
			p.refused(mem, refused)
		}
		p.release(mem, err)
		var wait time.Duration
		switch {
		case err == nil:
			return r, nil
		case rejected && said.Retryable() && try < attempts:
			wait = said.RetryAfter
			if wait == 0 {
				wait = backOff(minRetry, maxRetry, try-1)
			}
		case rejected:
			if inDoubt && said.Retryable() { // which says nothing about the first time
				err = &doubtError{err}
			}
			return Receipt{}, err
		case errors.Is(err, ErrInDoubt):
			inDoubt = true
			if !p.client.AtLeastOnce || try >= attempts || ctx.Err() != nil || p.isClosed() {
				return Receipt{}, err
			}
		case errors.Is(err, ErrNotSent):
			switch {
			case ctx.Err() != nil || p.isClosed() || try >= attempts || isRefusal(err):
				if inDoubt {
					err = &doubtError{err}
				}
				return Receipt{}, err
			case errors.Is(err, ReasonTooManyProviderTokenUpdates):
				wait = backOff(minRetry, maxRetry, try-1)
			case try > 1:
				wait = backOff(minRedial, maxRetry, try-2)
			}
		default:
			return Receipt{}, err // a local check's
		}
		if wait == 0 {
			continue
		}
		if why := p.rest(ctx, wait, rest); why != nil {
			if !rejected { // which is more than that there was no time
				err = fmt.Errorf("%w: %w", err, why)
			}
			if inDoubt && !errors.Is(err, ErrInDoubt) {
				err = &doubtError{err}
			}
			return Receipt{}, err
		}
	}
}

// A doubtError is about a message that was in doubt, and then not sent again.
type doubtError struct{ err error }

func (e *doubtError) Error() string {
	return fmt.Sprintf("%v: sent once, and then: %s", ErrInDoubt, plainText(e.err))
}

func (e *doubtError) Is(target error) bool {
	return target == ErrInDoubt || target != ErrNotSent && errors.Is(e.err, target)
}

// rest waits, unless the context would end before. The error says why it did not.
func (p *pool) rest(ctx context.Context, d time.Duration, rest func(resting bool)) error {
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= d {
		return context.DeadlineExceeded
	}
	rest(true)
	defer rest(false)
	t := time.NewTimer(d)
	defer t.Stop()
	p.client.mu.Lock()
	closed := p.client.context.Done()
	p.client.mu.Unlock()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-closed:
		return net.ErrClosed
	}
}

func (p *pool) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// count takes note of how many streams there are; the caller holds p.mu.
func (p *pool) count() {
	sum, open := 0, 0
	for _, mem := range p.members {
		n, _ := mem.session.streams()
		if mem.peak = max(mem.peak, n); !mem.retired {
			sum += n
			open++
		}
	}
	if open < p.client.maxConns() {
		sum++
	}
	p.streams.Store(int64(sum))
}

// reserve waits for a stream.
func (p *pool) reserve(ctx context.Context) (*member, error) {
	p.mu.Lock()
	if err := p.client.refusal(); err != nil || p.closed {
		p.mu.Unlock()
		if err == nil {
			err = net.ErrClosed
		}
		return nil, p.client.unsent(err)
	}
	if p.waiting.Len() == 0 {
		if mem := p.free(); mem != nil {
			p.mu.Unlock()
			return mem, nil
		}
	}
	got := make(chan stream, 1)
	e := p.waiting.PushBack(got)
	p.grow()
	p.mu.Unlock()
	select {
	case s := <-got:
		if s.err != nil {
			return nil, p.client.unsent(s.err)
		}
		return s.on, nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	select {
	case s := <-got: // at the same moment
		p.mu.Unlock()
		if s.err == nil {
			s.on.session.release()
			p.release(s.on, ErrNotSent)
		}
	default:
		p.waiting.Remove(e)
		p.mu.Unlock()
	}
	return nil, p.client.unsent(ctx.Err())
}

// free takes a stream that is free, or returns nil; the caller holds p.mu.
func (p *pool) free() *member {
	for _, mem := range p.members {
		// A connection from before the machine was put to sleep may be dead, and
		// not know it. The monotonic clock has slept as well.
		if mem.inside == 0 && !mem.retired && isIdle(mem.since) {
			p.retire(mem)
			return p.free()
		}
		// A stream is free before the outcome of its message is known here, which may
		// be that the server refuses the sender. So those inside are counted, too.
		if n, _ := mem.session.streams(); !mem.retired && mem.inside < n && mem.session.reserve() {
			mem.inside++
			return mem
		}
	}
	return nil
}

func isIdle(since time.Time) bool {
	return time.Now().Round(0).Sub(since.Round(0)) >= connIdleTimeout
}

// serve gives those who wait the streams that are free; the caller holds p.mu.
func (p *pool) serve() {
	for p.waiting.Len() > 0 {
		mem := p.free()
		if mem == nil {
			p.grow()
			return
		}
		p.waiting.Remove(p.waiting.Front()).(chan stream) <- stream{on: mem}
	}
}

// grow opens another connection, if there is none or all are of use and full; the
// caller holds p.mu.
func (p *pool) grow() {
	if p.connecting || p.closed {
		return
	}
	open := 0
	for _, mem := range p.members {
		if mem.retired {
			continue
		}
		open++
		n, trusted := mem.session.streams()
		// A server that says nothing of a new connection yet, or allows one stream
		// after a rejection, does not want another connection.
		if !trusted || n == 1 && mem.peak > 1 {
			return
		}
	}
	if open >= p.client.maxConns() {
		return
	}
	p.connecting = p.client.start(func() {
		conn, err := p.client.connect(func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.waiting.Len() > 0
		})
		if conn != nil && !p.add(conn) {
			conn.Close()
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.connecting = false
		if err != nil {
			p.refuse(err)
		}
		p.serve()
	})
}

// refuse ends all that waits; the caller holds p.mu.
func (p *pool) refuse(err error) {
	for p.waiting.Len() > 0 {
		p.waiting.Remove(p.waiting.Front()).(chan stream) <- stream{err: err}
	}
}

// release gives back a stream after a push with the given outcome. The stream
// itself is free already.
func (p *pool) release(mem *member, outcome error) {
	_, rejected := errors.AsType[*PushError](outcome)
	p.mu.Lock()
	defer p.mu.Unlock()
	mem.inside--
	if !mem.worked && (outcome == nil || rejected) {
		mem.worked = true
		p.client.worked()
	}
	if mem.inside == 0 {
		p.idle(mem)
	}
	p.serve()
}

// refused ends all that waits, because of an answer that all would get. Those who
// come a moment later get it without being sent.
func (p *pool) refused(mem *member, answer *refusedError) {
	p.mu.Lock()
	mem.worked = false // so that the next success ends it
	first := p.client.refusal() == nil
	if first {
		p.client.failed(answer)
		p.refuse(answer)
	}
	p.mu.Unlock()
	if first {
		p.client.logger().Error("apns: sender refused", "error", answer)
	}
}

// changed is told when a connection allows another number of streams, or none.
func (p *pool) changed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, mem := range slices.Clone(p.members) {
		if err := mem.session.ended(); err != nil && !mem.retired {
			if !mem.worked {
				p.client.failed(err)
			}
			p.retire(mem)
		}
	}
	p.count()
	p.serve()
}

// retire has a connection take no more messages; it is closed when the last one
// has its answer. The caller holds p.mu.
func (p *pool) retire(mem *member) {
	mem.retired = true
	if mem.inside == 0 {
		p.closeMember(mem)
	}
	p.count()
}

// closeMember closes a connection that has nothing to do; the caller holds p.mu.
func (p *pool) closeMember(mem *member) {
	mem.retired = true
	if p.client.start(func() { mem.conn.Close() }) {
		p.members = slices.DeleteFunc(p.members, func(m *member) bool { return m == mem })
	} // or else close is about to come
}

// idle takes note of a connection that has nothing to do; the caller holds p.mu.
func (p *pool) idle(mem *member) {
	if mem.retired {
		p.closeMember(mem)
		return
	}
	mem.since = time.Now()
	if p.timer == nil && !p.closed {
		p.timer = time.AfterFunc(connIdleTimeout, p.reap)
	}
}

// reap closes the connections that were idle for long enough.
func (p *pool) reap() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = nil
	if p.closed {
		return
	}
	var next time.Duration
	for _, mem := range slices.Clone(p.members) {
		switch {
		case mem.inside > 0:
		case isIdle(mem.since):
			p.closeMember(mem)
		default:
			next = max(next, time.Second, connIdleTimeout-time.Since(mem.since))
		}
	}
	if next > 0 {
		p.timer = time.AfterFunc(next, p.reap)
	}
}
