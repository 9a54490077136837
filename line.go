package apns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A line sends messages over the binary wire, in their order. One connection is
// being filled while those before it wait for the answers to their barriers.
//
// Its goroutines run while something is outstanding: one writes, one waits for the
// end of each connection, one looks at what takes too long.
type line struct {
	client *Client
	wake   chan struct{} // full when there is something new for the one that writes
	parked atomic.Bool   // which waits for that, or does not run

	mu         sync.Mutex   // protects following
	queue      queue[entry] // what waits to be written
	filling    *run         // nil: there is no connection to write to
	proving    []*run       // whose barriers are on their way
	spare      *Conn        // to be filled next
	connecting bool
	writing    bool      // the goroutine that writes is running
	feeding    []*batch  // those that have more to come
	hurried    bool      // the proof is wanted as soon as the queue is empty
	shutdown   bool      // and so is every later one
	capacity   int       // how many messages a connection takes
	ceiling    int       // up to where that doubles with each proof
	proofs     int       // since the ceiling was set
	barrierAt  time.Time // when the last barrier was written
	ticks      uint32    // eighths of the timeout
	closed     bool
	free       [][]entry // to be used again
	ends       []int     // of the messages in what is written; of the goroutine that writes
}

// An entry is a message on its way to its fate.
type entry struct {
	m     *Message
	to    settler // nil: it has its fate
	tick  uint32  // when it came, if it has the Client's timeout; or else 0
	tries uint16  // how often it was in doubt
	sent  bool    // it was written to a connection that has ended
	blank bool    // it was not written after all
}

// A settler is told the fate of messages. Where owner is not nil, it may have the
// entries back when they are done with.
type settler interface {
	settled(entries []entry, owner *line, err error)
}

// A run is a connection and what was written to it. The identifier of a message
// on the wire is its place among the entries, counted from 1.
type run struct {
	conn    *Conn
	entries []entry
	open    int       // entries without a fate
	written int       // entries of which the last byte was written
	since   time.Time // when the first was
	busy    bool      // it is being written to
	waits   uint32    // the tick since when the gateway is to read or to answer; 0: it is not
	over    bool      // the connection has ended
	silence *time.Timer
}

const (
	// maxProving is how many connections may wait for the answers to their
	// barriers.
	maxProving = 2
	// recordSize is how much goes into a TLS record.
	recordSize = 16 << 10
	// gathered is how many messages are as much, about, and patience how long it
	// waits for them while there are more to come.
	gathered = 128
	patience = 50 * time.Microsecond
	// spareTime is how long a connection is kept that nobody writes to.
	spareTime = 10 * time.Second
	// timeoutTicks is how many ticks the timeout has.
	timeoutTicks = 8
	// minCapacity is how many messages a connection takes at least after a
	// rejection: to send as many once more costs less than to dial.
	minCapacity = 512
)

func newLine(c *Client) *line {
	l := &line{client: c, wake: make(chan struct{}, 1), ticks: 1}
	l.capacity, l.ceiling = l.mostCapacity(), l.mostCapacity()
	l.parked.Store(true)
	return l
}

// mostCapacity is how many messages a connection takes at the most. While its
// barrier is on its way, the next one takes what else there may be outstanding.
func (l *line) mostCapacity() int { return max(1, l.client.window()*3/4) }

// lowerCapacity takes note that a connection with n messages ended without a word.
// A server that takes a few on each connection is soon asked about as many.
func (l *line) lowerCapacity(n int) {
	l.capacity = max(1, min(l.capacity, n/4))
	l.ceiling, l.proofs = max(1, n/2), 0
}

// raiseCapacity takes note of a proof. To ask for more than was once too much takes
// many of them, so that most messages are not in doubt again and again.
func (l *line) raiseCapacity() {
	if l.proofs++; l.capacity >= l.ceiling/2 && l.proofs >= 16 {
		l.ceiling, l.proofs = 2*l.ceiling, 0
	}
	l.ceiling = min(l.ceiling, l.mostCapacity())
	l.capacity = max(l.capacity, min(2*l.capacity, l.ceiling))
}

// The verbs of a sender.

func (l *line) push(ctx context.Context, m *Message) (Receipt, error) {
	call := &call{done: make(chan struct{})}
	l.mu.Lock()
	l.enqueue(entry{m: m, to: call})
	l.mu.Unlock()
	select {
	case <-call.done:
	case <-ctx.Done():
		l.giveUp(call, ctx.Err())
		<-call.done
	}
	return Receipt{}, call.err
}

// A call is one of Push.
type call struct {
	done chan struct{}
	err  error
}

func (c *call) settled(_ []entry, _ *line, err error) {
	c.err = err
	close(c.done)
}

func (l *line) feeds(b *batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.feeding = append(l.feeding, b)
}

func (l *line) accept(b *batch, m *Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.enqueueOf(b, m)
}

// enqueueOf lets a message of a batch wait to be written; the caller holds l.mu.
func (l *line) enqueueOf(b *batch, m *Message) {
	e := entry{m: m, to: b, tick: l.ticks}
	if b.stopped.Load() {
		l.settle([]entry{e}, fmt.Errorf("%w: %w", ErrNotSent, b.ctx.Err()))
		return
	}
	l.enqueue(e)
}

// submit leaves the message where the goroutine that writes takes many at a time:
// to take a lock for each would cost more than to encode it.
func (l *line) submit(b *batch, m *Message) {
	if !b.ring.put(m) {
		l.mu.Lock()
		l.take(b)
		l.mu.Unlock()
		b.ring.put(m)
	}
	if l.parked.Load() {
		l.mu.Lock()
		l.take(b)
		l.mu.Unlock()
	}
}

func (l *line) fed(b *batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.take(b)
	l.feeding = slices.DeleteFunc(l.feeding, func(f *batch) bool { return f == b })
	b.whole = true
	l.hurried = true
	l.notify()
}

func (l *line) giveUp(of settler, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b, ok := of.(*batch); ok {
		l.take(b)
	}
	l.endWhere(func(e *entry) bool { return e.to == of }, err)
	l.notify()
}

// take takes what a batch has submitted; the caller holds l.mu.
func (l *line) take(b *batch) {
	for ms := b.ring.ready(); len(ms) > 0; ms = b.ring.ready() {
		l.client.handed.Add(uint64(len(ms)))
		closing := l.client.closing.Load()
		if b.stopped.Load() || closing || l.closed {
			for _, m := range ms {
				if closing {
					l.settle([]entry{{m: m, to: b}}, errClientClosed(ErrNotSent))
				} else {
					l.enqueueOf(b, m)
				}
			}
		} else {
			l.queue.reserve(len(ms))
			for _, m := range ms {
				l.queue.push(entry{m: m, to: b, tick: l.ticks})
			}
			l.beginWriting()
		}
		b.ring.taken(len(ms))
	}
}

// takeAll takes what all batches have submitted; the caller holds l.mu.
func (l *line) takeAll() {
	for _, b := range l.feeding {
		l.take(b)
	}
}

func (l *line) add(conn *Conn) bool {
	conn.use(sendsMessages) // so that its end does not go unheard
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.spare = conn
	l.notify()
	// Whoever wanted it may have given up.
	time.AfterFunc(spareTime, func() {
		l.mu.Lock()
		drop := l.spare == conn && !l.writing
		if drop {
			l.spare = nil
		}
		l.mu.Unlock()
		if drop {
			conn.Close()
		}
	})
	return true
}

func (l *line) hurry() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.takeAll() // for they came before
	l.hurried, l.shutdown = true, true
	l.notify()
}

func (l *line) close() {
	l.mu.Lock()
	l.takeAll()
	l.closed = true
	for l.queue.n > 0 {
		if e := l.queue.pop(); e.to != nil {
			l.settle([]entry{e}, errClientClosed(e.unsent()))
		}
	}
	for _, r := range l.runs() {
		r.conn.end(ending{cause: net.ErrClosed})
	}
	spare := l.spare
	l.spare = nil
	l.notify()
	l.mu.Unlock()
	if spare != nil {
		spare.Close()
	}
}

// unsent is the fate of an entry that is not written any more: one that was in
// doubt before is so again.
func (e *entry) unsent() error {
	if e.tries > 0 {
		return ErrInDoubt
	}
	return ErrNotSent
}

// enqueue lets an entry wait to be written; the caller holds l.mu.
func (l *line) enqueue(e entry) {
	if l.closed {
		l.settle([]entry{e}, errClientClosed(ErrNotSent))
		return
	}
	l.queue.push(e)
	l.beginWriting()
}

// beginWriting has somebody write what waits; the caller holds l.mu.
func (l *line) beginWriting() {
	switch {
	case !l.parked.Load():
	case !l.writing:
		l.writing = l.client.start(l.write)
		l.parked.Store(!l.writing)
	default:
		l.notify()
	}
}

// notify has the goroutine that writes look again; the caller holds l.mu.
func (l *line) notify() {
	if l.writing {
		l.parked.Store(false)
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// settle tells the fate of entries, which are all of one settler. Those of a batch
// are counted here, a Push where it returns. The caller holds l.mu.
func (l *line) settle(entries []entry, err error) { l.settleAll(entries, nil, err) }

func (l *line) settleAll(entries []entry, owner *line, err error) {
	if _, ok := entries[0].to.(*batch); ok {
		l.client.settle(len(entries), err)
	}
	entries[0].to.settled(entries, owner, err)
}

// recycle takes entries that nobody needs any more, for a connection that takes as
// many.
func (l *line) recycle(entries []entry) {
	clear(entries)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.writing && len(l.free) < maxProving+2 {
		l.free = append(l.free, entries[:0])
	}
}

// settleOne gives an entry of a run its fate; the caller holds l.mu.
func (l *line) settleOne(r *run, e *entry, err error) {
	whole := *e
	e.to = nil
	r.open--
	l.settle([]entry{whole}, err)
}

func (l *line) runs() []*run {
	if l.filling == nil {
		return l.proving
	}
	return append(slices.Clip(l.proving), l.filling)
}

// endWhere gives up the entries for which the function holds, because of err; the
// caller holds l.mu.
func (l *line) endWhere(is func(*entry) bool, err error) {
	inDoubt := fmt.Errorf("%w: the gateway had not been heard of: %w", ErrInDoubt, err)
	notSent := l.client.unsent(err)
	for i := range l.queue.n {
		if e := l.queue.at(i); e.to != nil && is(e) {
			whole := *e
			e.to = nil
			if whole.tries > 0 {
				l.settle([]entry{whole}, inDoubt)
			} else {
				l.settle([]entry{whole}, notSent)
			}
		}
	}
	for _, r := range l.runs() {
		for i := range r.entries {
			if e := &r.entries[i]; e.to != nil && is(e) {
				l.settleOne(r, e, inDoubt)
			}
		}
	}
}

// write is the goroutine that writes, to the end of what is outstanding.
func (l *line) write() {
	var watching sync.WaitGroup
	quit := make(chan struct{})
	watching.Go(func() { l.watch(quit) })
	defer watching.Wait()
	defer close(quit)
	buf := make([]byte, 0, recordSize)
	yielded, patient := false, false
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		if l.filling == nil && l.spare != nil {
			r := &run{conn: l.spare}
			l.spare = nil
			if l.client.start(func() { l.await(r) }) {
				l.filling = r
			} else {
				r.conn.end(ending{cause: net.ErrClosed})
				r.conn.disconnect()
			}
		}
		l.takeAll()
		r := l.filling
		waiting := l.waiting()
		full := r != nil && len(r.entries) >= l.capacity
		if waiting && (r == nil || len(r.entries) >= l.capacity/2) {
			l.connect()
		}
		if waiting && r != nil && !full {
			if len(l.feeding) > 0 && l.queue.n < gathered && !patient {
				// A batch soon has as many as are worth to be written.
				patient = true
				l.mu.Unlock()
				time.Sleep(patience)
				l.mu.Lock()
				continue
			}
			buf = l.writeSome(r, buf)
			yielded, patient = false, false
			continue
		}
		if !waiting && !yielded {
			yielded = true
			l.mu.Unlock()
			runtime.Gosched() // whoever has something to add may do so
			l.mu.Lock()
			continue
		}
		due, at := l.barrierDue(r, waiting, full)
		switch {
		case due:
			l.writeBarrier(r)
			continue
		case waiting || l.connecting || len(l.proving) > 0 || r != nil && r.open > 0:
		case r != nil: // there is nothing to prove
			r.conn.end(ending{cause: net.ErrClosed})
		case l.spare != nil:
			spare := l.spare
			l.spare = nil
			l.mu.Unlock()
			spare.Close()
			l.mu.Lock()
			continue
		default:
			l.parked.Store(true)
			if l.takeAll(); l.queue.n > 0 {
				l.parked.Store(false)
				continue
			}
			l.hurried, l.free = false, nil
			l.writing = false
			return
		}
		l.park(at)
		yielded = false
	}
}

// waiting drops what has its fate from the head of the queue and reports whether
// something is left; the caller holds l.mu.
func (l *line) waiting() bool {
	for l.queue.n > 0 && l.queue.at(0).to == nil {
		l.queue.pop()
	}
	return l.queue.n > 0
}

// park waits for news, or until a time that is not zero; the caller holds l.mu.
func (l *line) park(at time.Time) {
	l.parked.Store(true)
	before := l.queue.n
	l.takeAll() // who submitted something before that has not seen it
	if l.queue.n == before {
		l.mu.Unlock()
		var timer <-chan time.Time
		if !at.IsZero() {
			timer = time.After(time.Until(at))
		}
		select {
		case <-l.wake:
		case <-timer:
		}
		l.mu.Lock()
	}
	l.parked.Store(false)
}

// writeSome writes what fits into a TLS record; the caller holds l.mu.
func (l *line) writeSome(r *run, buf []byte) []byte {
	from, size, resent := len(r.entries), 0, 0
	if from == 0 {
		r.since = time.Now()
		if n := len(l.free); n > 0 {
			r.entries, l.free = l.free[n-1], l.free[:n-1]
		}
	}
	taken := 0
	for ; taken < l.queue.n && len(r.entries) < l.capacity; taken++ {
		e := l.queue.at(taken)
		if e.to == nil {
			continue
		}
		size += sizeOnWire(e.m)
		if size > recordSize && len(r.entries) > from {
			break
		}
		if e.sent {
			resent++
		}
		r.entries = append(r.entries, *e)
	}
	l.queue.drop(taken)
	entries := r.entries[from:]
	r.open += len(entries)
	r.busy, r.waits = true, l.ticks
	if resent > 0 {
		l.client.resent(resent)
	}
	buf, l.ends = buf[:0], l.ends[:0]
	var bad map[int]error
	last := 0 // identifier
	for i := range entries {
		var err error
		buf, err = appendMsg(buf, entries[i].m, uint32(from+i+1))
		l.ends = append(l.ends, len(buf))
		if err == nil {
			last = from + i + 1
			continue
		}
		if bad == nil {
			bad = make(map[int]error)
		}
		bad[i] = err
	}
	// From here on no message is looked at: one that is given up is its owner's
	// again. It is written all the same.
	l.mu.Unlock()
	n, err := 0, error(nil)
	if len(buf) > 0 {
		n, err = r.conn.writeRun(buf, uint32(from+1), uint32(last))
	}

	l.mu.Lock()
	r.busy, r.waits = false, 0
	for i, err := range bad {
		e := &entries[i]
		e.blank = true
		if e.to != nil {
			l.settleOne(r, e, err)
		}
	}
	switch {
	case r.written < from: // a write before this one failed
	case err == nil:
		r.written = len(r.entries)
	default:
		for i := 0; i < len(l.ends) && l.ends[i] <= n; i++ {
			r.written++
		}
	}
	if r.over {
		l.finish(r)
	}
	return buf
}

// barrierDue reports whether it is time for the barrier of the connection that is
// being filled, and if not, when it will be; the caller holds l.mu.
func (l *line) barrierDue(r *run, waiting, full bool) (bool, time.Time) {
	switch {
	case r == nil || r.open == 0 && !full || len(l.proving) >= maxProving:
		return false, time.Time{}
	case full || (l.hurried || l.shutdown) && !waiting:
		return true, time.Time{}
	}
	at := l.barrierAt
	if (waiting || len(l.feeding) > 0) && r.since.After(at) {
		at = r.since // for there is more to come
	}
	at = at.Add(l.client.confirmEvery())
	return !time.Now().Before(at), at
}

// writeBarrier has the gateway prove what it accepted; the caller holds l.mu.
func (l *line) writeBarrier(r *run) {
	l.filling = nil
	l.proving = append(l.proving, r)
	l.barrierAt = time.Now()
	if l.queue.n == 0 {
		l.hurried = false
	}
	r.busy, r.waits = true, l.ticks
	l.mu.Unlock()
	r.conn.prove()
	l.mu.Lock()
	r.busy = false
	switch settle := l.client.Settle; {
	case r.over:
		l.finish(r)
	case settle > 0:
		r.silence = time.AfterFunc(settle, func() { r.conn.end(ending{cause: net.ErrClosed, proved: true}) })
	}
}

// connect has a connection dialed, unless there is a spare one or one on its way;
// the caller holds l.mu.
func (l *line) connect() {
	if l.connecting || l.spare != nil || l.closed {
		return
	}
	l.connecting = l.client.start(func() {
		conn, err := l.client.connect(func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.waiting()
		})
		if conn != nil && !l.add(conn) {
			conn.Close()
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.connecting = false
		if err != nil {
			l.refuse(err)
		}
		l.notify()
	})
}

// refuse ends all that waits, because the server refuses the sender; the caller
// holds l.mu.
func (l *line) refuse(err error) {
	for l.queue.n > 0 {
		if e := l.queue.pop(); e.to != nil {
			l.settle([]entry{e}, fmt.Errorf("%w: %w", e.unsent(), plainError{err}))
		}
	}
}

// await waits for the end of a connection, and then for what is left of it.
func (l *line) await(r *run) {
	<-r.conn.done
	l.mu.Lock()
	r.over = true
	if !r.busy {
		l.finish(r)
	}
	l.mu.Unlock()
	r.conn.Close()
}

// finish settles what was written to a connection that has ended; the caller holds
// l.mu.
func (l *line) finish(r *run) {
	if l.filling == r {
		l.filling = nil
	}
	l.proving = slices.DeleteFunc(l.proving, func(p *run) bool { return p == r })
	if r.silence != nil {
		r.silence.Stop()
	}
	var again []entry
	e := r.conn.final()
	failure := e.cause
	switch {
	case e.proved:
		l.settleFirst(r, len(r.entries))
		l.raiseCapacity()
		failure = nil
	case e.said != nil && r.names(e.said.ID):
		failure = nil
		i := int(e.said.ID)
		if e.said.Rejected() {
			l.settleFirst(r, i-1)
			if rejected := &r.entries[i-1]; rejected.to != nil {
				said := *e.said
				said.ID = rejected.m.ID
				l.settleOne(r, rejected, &said)
			}
		} else {
			l.settleFirst(r, i)
		}
		again = l.sendAgain(r, i)
		l.capacity = min(l.capacity, max(minCapacity, 8*i))
	case e.said != nil:
		failure = fmt.Errorf("the gateway names a message that it was not sent: %s", plainText(e.said))
		again = l.doubt(r, failure)
	case e.refused:
		again = l.sendAgain(r, 0)
	case l.closed:
		again = l.doubt(r, errClientClosed(ErrInDoubt))
	default:
		again = l.doubt(r, failure)
		if failure == net.ErrClosed {
			failure = nil // there was nothing to prove
		}
	}
	if l.closed {
		for _, e := range again {
			l.settle([]entry{e}, errClientClosed(e.unsent()))
		}
		l.notify()
		return
	}
	l.queue.pushFront(again)
	if failure != nil {
		l.client.failed(failure)
		if isRefusal(failure) {
			l.refuse(failure)
		}
	} else if len(r.entries) > 0 {
		l.client.worked()
	}
	l.hurried = l.hurried || slices.ContainsFunc(again, func(e entry) bool {
		b, ok := e.to.(*batch)
		return l.shutdown || ok && b.whole
	})
	l.notify()
}

// names reports whether a message was written with the identifier.
func (r *run) names(id uint32) bool {
	return id > 0 && int64(id) <= int64(len(r.entries)) && !r.entries[id-1].blank
}

// settleFirst settles the first n entries as accepted; the caller holds l.mu.
func (l *line) settleFirst(r *run, n int) {
	for i := 0; i < n; {
		to := r.entries[i].to
		from := i
		for i++; i < n && r.entries[i].to == to; i++ {
		}
		if to != nil {
			r.open -= i - from
			// Nobody touches these entries any more.
			if i-from == len(r.entries) {
				l.settleAll(r.entries, l, nil)
			} else {
				l.settle(r.entries[from:i:i], nil)
			}
		}
	}
}

// sendAgain returns the entries from n on, which the gateway did not process, to
// be sent again; the caller holds l.mu.
func (l *line) sendAgain(r *run, n int) (again []entry) {
	for i := n; i < len(r.entries); i++ {
		if e := r.entries[i]; e.to != nil {
			e.sent = e.sent || i < r.written
			again = append(again, e)
		}
	}
	return again
}

// doubt settles all entries as in doubt because of err, but for those to be sent
// again: which were not written, or which are to arrive at least once. The caller
// holds l.mu.
func (l *line) doubt(r *run, err error) (again []entry) {
	if r.open == 0 {
		return nil
	}
	if !errors.Is(err, ErrInDoubt) {
		err = fmt.Errorf("%w: %w", ErrInDoubt, err)
	}
	l.lowerCapacity(len(r.entries))
	for i := range r.written {
		e := &r.entries[i]
		if e.to == nil {
			continue
		}
		e.tries++
		if l.client.AtLeastOnce && int(e.tries) < l.client.attempts() && !l.closed {
			e.sent = true
			again = append(again, *e)
		} else {
			l.settleOne(r, e, err)
		}
	}
	return append(again, l.sendAgain(r, r.written)...)
}

// watch ends, at each tick, what takes too long.
func (l *line) watch(quit <-chan struct{}) {
	t := time.NewTicker(max(1, l.client.timeout()/timeoutTicks))
	defer t.Stop()
	for {
		select {
		case <-t.C:
			l.tick()
		case <-quit:
			return
		}
	}
}

func (l *line) tick() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ticks++; l.ticks == 0 {
		l.ticks = 1
	}
	late := func(since uint32, ticks uint32) bool { return since != 0 && l.ticks-since > ticks }
	l.endWhere(func(e *entry) bool { return late(e.tick, timeoutTicks) }, context.DeadlineExceeded)
	for _, r := range l.runs() {
		switch {
		case !late(r.waits, timeoutTicks) && (r.open > 0 || !late(r.waits, 1)):
		case r == l.filling:
			r.conn.end(ending{cause: fmt.Errorf("the gateway did not read for %v", l.client.timeout())})
		default:
			r.conn.end(ending{cause: fmt.Errorf("the gateway did not answer the barrier for %v", l.client.timeout())})
		}
	}
	l.notify()
}

// A ring hands messages from the goroutine that feeds a batch to whoever holds the
// mutex of the line.
type ring struct {
	in       atomic.Uint32 // how many were put
	_        [60]byte      // for each side has a cache line of its own
	out      atomic.Uint32 // how many were taken
	_        [60]byte
	messages [256]*Message
}

// put is false if there is no room.
func (r *ring) put(m *Message) bool {
	in := r.in.Load()
	if in-r.out.Load() == uint32(len(r.messages)) {
		return false
	}
	r.messages[in%uint32(len(r.messages))] = m
	r.in.Store(in + 1)
	return true
}

// ready returns messages that were put and not taken: the first ones, as far as
// they are in a row.
func (r *ring) ready() []*Message {
	in, out := r.in.Load(), r.out.Load()
	from := out % uint32(len(r.messages))
	return r.messages[from:min(from+in-out, uint32(len(r.messages)))]
}

// taken says that the first n of those were taken.
func (r *ring) taken(n int) {
	from := r.out.Load() % uint32(len(r.messages))
	clear(r.messages[from : from+uint32(n)])
	r.out.Add(uint32(n))
}

// A queue is first in, first out.
type queue[T any] struct {
	ring []T // of a size that is a power of two
	head int
	n    int
}

func (q *queue[T]) at(i int) *T { return &q.ring[(q.head+i)&(len(q.ring)-1)] }

func (q *queue[T]) push(v T) {
	q.reserve(1)
	q.ring[(q.head+q.n)&(len(q.ring)-1)] = v
	q.n++
}

// reserve makes room for so many more.
func (q *queue[T]) reserve(more int) {
	if q.n+more > len(q.ring) {
		q.grow(more)
	}
}

func (q *queue[T]) pop() (v T) {
	p := q.at(0)
	v, *p = *p, v
	q.head = (q.head + 1) & (len(q.ring) - 1)
	q.n--
	return v
}

// drop removes the first n.
func (q *queue[T]) drop(n int) {
	if k := min(n, len(q.ring)-q.head); k > 0 {
		clear(q.ring[q.head : q.head+k])
		clear(q.ring[:n-k])
	}
	q.head = (q.head + n) & (len(q.ring) - 1)
	q.n -= n
}

// pushFront puts values before all others.
func (q *queue[T]) pushFront(vs []T) {
	q.reserve(len(vs))
	q.head = (q.head - len(vs)) & (len(q.ring) - 1)
	q.n += len(vs)
	for i, v := range vs {
		*q.at(i) = v
	}
}

func (q *queue[T]) grow(more int) {
	size := max(16, len(q.ring))
	for size < q.n+more {
		size *= 2
	}
	ring := make([]T, size)
	for i := range q.n {
		ring[i] = *q.at(i)
	}
	q.ring, q.head = ring, 0
}
