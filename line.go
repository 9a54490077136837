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

	mu         sync.Mutex // protects following
	queue      queue[lot] // what waits to be written
	queued     int        // how many messages that are
	filling    *run       // nil: there is no connection to write to
	proving    []*run     // whose barriers are on their way
	spare      *Conn      // to be filled next
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
}

// A lot is messages in a row that have gone the same way so far.
type lot struct {
	messages []*Message // nil: they have their fate
	n        int        // how many there are, or were
	on       *sheet     // that they came on; or nil
	to       settler
	tick     uint32 // when they came, if they have the Client's timeout; or else 0
	tries    uint16 // how often they were in doubt
	sent     bool   // they were written to a connection that has ended
}

// A settler is told the fate of messages. If they came on a sheet, that can be
// used again when all of it is done with.
type settler interface {
	settled(messages []*Message, on *sheet, err error)
}

// A run is a connection and what was written to it. The identifier of a message
// on the wire is its place among all, counted from 1.
type run struct {
	conn    *Conn
	lots    []lot
	count   int       // messages
	open    int       // messages without a fate
	written int       // messages of which the last byte was written
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
	// enough is how much is written at once, if there is as much.
	enough = 64 << 10
	// gathered is how many messages are as much, about, and patience how long it
	// waits for them while there are more to come.
	gathered = 512
	patience = 50 * time.Microsecond
	// maxQueued is how many messages of batches wait at the most while others are
	// written: what cannot be sent soon shall not take its time here.
	maxQueued = 8 * gathered
	// spareTime is how long a connection is kept that nobody writes to.
	spareTime = 10 * time.Second
	// timeoutTicks is how many ticks the timeout has, and firstTick one that has
	// as many before it.
	timeoutTicks = 8
	firstTick    = 2 * timeoutTicks
	// minCapacity is how many messages a connection takes at least after a
	// rejection: to send as many once more costs less than to dial.
	minCapacity = 512
)

func newLine(c *Client) *line {
	l := &line{client: c, wake: make(chan struct{}, 1), ticks: firstTick}
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
	call := &call{done: make(chan struct{}), messages: [1]*Message{m}}
	l.mu.Lock()
	l.enqueue(lot{messages: call.messages[:], n: 1, to: call})
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
	messages [1]*Message
	done     chan struct{}
	err      error
}

func (c *call) settled(_ []*Message, _ *sheet, err error) {
	c.err = err
	close(c.done)
}

func (l *line) feeds(b *batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b.sheet = new(sheet)
	l.feeding = append(l.feeding, b)
}

func (l *line) accept(b *batch, some ...handed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var t lot
	for _, h := range some {
		if tick := l.tickOf(h.end); tick != t.tick {
			if t.n > 0 {
				l.enqueueOf(b, t)
			}
			t = lot{to: b, tick: tick}
		}
		t.messages = append(t.messages, h.m)
		t.n++
	}
	l.enqueueOf(b, t)
}

// tickOf returns when a message came whose time ends then.
func (l *line) tickOf(end time.Time) uint32 {
	timeout := l.client.timeout()
	left := (time.Until(end)*timeoutTicks + timeout - 1) / timeout
	return l.ticks - timeoutTicks + uint32(min(max(0, left), timeoutTicks))
}

// enqueueOf lets messages of a batch wait to be written; the caller holds l.mu.
func (l *line) enqueueOf(b *batch, t lot) {
	if b.stopped.Load() {
		l.settle(&t, fmt.Errorf("%w: %w", ErrNotSent, b.ctx.Err()))
		return
	}
	l.enqueue(t)
}

// submit leaves the message where the goroutine that writes takes many at a time:
// to take a lock for each would cost more than to encode it.
func (l *line) submit(b *batch, m *Message) {
	if !b.sheet.put(m) {
		next := b.newSheet()
		l.mu.Lock()
		b.sheet.set(m)
		l.take(b)
		b.sheet = next // before the full one can be used again
		b.crowded.Store(l.queued >= maxQueued)
		l.mu.Unlock()
		return
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
	if l.queued > 0 || l.filling != nil && l.filling.open > 0 {
		l.hurried = true
		l.notify()
	}
}

func (l *line) giveUp(of settler, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b, ok := of.(*batch); ok {
		l.take(b)
	}
	l.endWhere(func(t *lot) bool { return t.to == of }, err)
	l.notify()
}

// take takes what a batch has submitted; the caller holds l.mu.
func (l *line) take(b *batch) {
	if b.sheet == nil { // it has just begun
		return
	}
	ms := b.sheet.take()
	if len(ms) == 0 {
		return
	}
	l.client.handed.Add(uint64(len(ms)))
	t := lot{messages: ms, n: len(ms), on: b.sheet, to: b, tick: l.ticks}
	if l.client.closing.Load() {
		l.settle(&t, errClientClosed(ErrNotSent))
	} else {
		l.enqueueOf(b, t)
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
		defer l.mu.Unlock()
		if l.spare == conn && !l.writing && l.client.start(func() { conn.Close() }) {
			l.spare = nil
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
	l.settleQueue(func(t *lot) error { return errClientClosed(t.unsent()) })
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

// unsent is the fate of messages that are not written any more: those that were in
// doubt before are so again.
func (t *lot) unsent() error {
	if t.tries > 0 {
		return ErrInDoubt
	}
	return ErrNotSent
}

// enqueue lets messages wait to be written; the caller holds l.mu.
func (l *line) enqueue(t lot) {
	if l.closed {
		l.settle(&t, errClientClosed(ErrNotSent))
		return
	}
	l.queue.push(t)
	l.queued += t.n
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

// settle tells the fate of messages. Those of a batch are counted here, a Push where
// it returns. The caller holds l.mu.
func (l *line) settle(t *lot, err error) {
	messages := t.messages
	t.messages = nil
	if _, ok := t.to.(*batch); ok {
		l.client.settle(len(messages), err)
	}
	t.to.settled(messages, t.on, err)
}

// settleQueue ends all that waits; the caller holds l.mu.
func (l *line) settleQueue(fate func(*lot) error) {
	for l.waiting() {
		t := l.queue.pop()
		l.queued -= t.n
		l.settle(&t, fate(&t))
	}
	l.makeRoom()
}

// makeRoom has those go on who have more messages, if there is enough room; the
// caller holds l.mu.
func (l *line) makeRoom() {
	if l.queued > maxQueued/2 {
		return
	}
	for _, b := range l.feeding {
		if b.crowded.Load() {
			b.mu.Lock()
			b.crowded.Store(false)
			b.room.Signal()
			b.mu.Unlock()
		}
	}
}

func (l *line) runs() []*run {
	if l.filling == nil {
		return l.proving
	}
	return append(slices.Clip(l.proving), l.filling)
}

// endWhere gives up the messages for which the function holds, because of err; the
// caller holds l.mu.
func (l *line) endWhere(is func(*lot) bool, err error) {
	inDoubt := fmt.Errorf("%w: the gateway had not been heard of: %w", ErrInDoubt, err)
	notSent := l.client.unsent(err)
	for i := range l.queue.n {
		switch t := l.queue.at(i); {
		case t.messages == nil || !is(t):
		case t.tries > 0:
			l.queued -= t.n
			l.settle(t, inDoubt)
		default:
			l.queued -= t.n
			l.settle(t, notSent)
		}
	}
	l.makeRoom()
	for _, r := range l.runs() {
		for i := range r.lots {
			if t := &r.lots[i]; t.messages != nil && is(t) {
				r.open -= t.n
				l.settle(t, inDoubt)
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
	var b buffers
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
				l.mu.Unlock()
				r.conn.Close()
				l.mu.Lock()
			}
		}
		l.takeAll()
		r := l.filling
		waiting := l.waiting()
		full := r != nil && r.count >= l.capacity
		due, at := l.barrierDue(r, waiting, full)
		if waiting && (r == nil || due || r.count >= l.capacity/2 || !at.IsZero() && time.Until(at) < l.client.confirmInterval()/2) {
			l.connect() // which takes its time
		}
		if waiting && r != nil && !full && !due {
			if len(l.feeding) > 0 && l.queued < gathered && !patient {
				// A batch soon has as many as are worth to be written.
				patient = true
				l.mu.Unlock()
				time.Sleep(patience)
				l.mu.Lock()
				continue
			}
			l.writeSome(r, &b)
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
			if l.takeAll(); l.waiting() {
				l.parked.Store(false)
				continue
			}
			l.hurried = false
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
	for l.queue.n > 0 && l.queue.at(0).messages == nil {
		l.queue.pop()
	}
	return l.queue.n > 0
}

// park waits for news, or until a time that is not zero; the caller holds l.mu.
func (l *line) park(at time.Time) {
	l.parked.Store(true)
	before := l.queued
	l.takeAll() // who submitted something before that has not seen it
	if l.queued == before {
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

// Buffers are memory that is used again and again by the goroutine that writes.
type buffers struct {
	plain   []byte
	ends    []int // of the messages in it
	records []byte
}

// writeSome writes as many messages as are worth it; the caller holds l.mu.
func (l *line) writeSome(r *run, b *buffers) {
	from, resent := r.count, 0
	if from == 0 {
		r.since = time.Now()
	}
	b.plain, b.ends = b.plain[:0], b.ends[:0]
	for r.count < l.capacity && len(b.plain) < enough && l.waiting() {
		t := l.queue.at(0)
		n, bad := r.encode(t.messages[:min(len(t.messages), l.capacity-r.count)], b)
		if n > 0 {
			if t.sent {
				resent += n
			}
			r.lots = append(r.lots, t.cut(n))
			r.count += n
			r.open += n
			l.queued -= n
		}
		if bad != nil {
			wrong := t.cut(1)
			l.queued--
			l.settle(&wrong, bad)
		}
		if t.n == 0 {
			l.queue.pop()
		}
	}
	l.makeRoom()
	if resent > 0 {
		l.client.resent(resent)
	}
	if r.count == from {
		return
	}
	// From here on no message is looked at: one that is given up is its owner's
	// again. It is written all the same.
	r.busy, r.waits = true, l.ticks
	first, last := uint32(from+1), uint32(r.count)
	l.mu.Unlock()
	var n int
	var err error
	n, b.records, err = r.conn.writeRun(b.plain, first, last, b.records)

	l.mu.Lock()
	r.busy, r.waits = false, 0
	if err == nil {
		r.written = r.count
	} else {
		for i := 0; i < len(b.ends) && b.ends[i] <= n; i++ {
			r.written++
		}
	}
	if r.over {
		l.finish(r)
	}
}

// encode appends messages until that is enough, or one of them breaks a rule. It
// returns how many there were.
func (r *run) encode(messages []*Message, b *buffers) (n int, err error) {
	for n < len(messages) && len(b.plain) < enough {
		b.plain, err = appendMsg(b.plain, messages[n], uint32(r.count+n+1))
		if err != nil {
			break
		}
		n++
		b.ends = append(b.ends, len(b.plain))
	}
	return n, err
}

// cut takes the first n messages from a lot.
func (t *lot) cut(n int) lot {
	first := *t
	first.n = n
	t.n -= n
	if t.messages != nil {
		first.messages, t.messages = t.messages[:n:n], t.messages[n:]
	}
	return first
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
	at = at.Add(l.client.confirmInterval())
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
	switch settle := l.client.AssumeAcceptedAfter; {
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
	l.settleQueue(func(t *lot) error { return fmt.Errorf("%w: %w", t.unsent(), plainError{err}) })
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
	var again []lot
	e := r.conn.final()
	failure := e.cause
	switch {
	case e.proved:
		l.settleAll(r.first(r.count), nil)
		l.raiseCapacity()
		failure = nil
	case e.said != nil && r.names(e.said.ID):
		failure = nil
		i := int(e.said.ID)
		if e.said.Rejected() {
			l.settleAll(r.first(i-1), nil)
			if rejected := r.first(1); rejected[0].messages != nil {
				said := *e.said
				said.ID = rejected[0].messages[0].ID
				l.settleAll(rejected, &said)
			}
		} else {
			l.settleAll(r.first(i), nil)
		}
		again = r.sendAgain(i)
		l.capacity = min(l.capacity, max(minCapacity, 8*i))
	case e.said != nil:
		failure = fmt.Errorf("the gateway names a message that it was not sent: %s", plainText(e.said))
		again = l.doubt(r, failure)
	case e.refused:
		again = r.sendAgain(0)
	case l.closed:
		again = l.doubt(r, errClientClosed(ErrInDoubt))
	default:
		again = l.doubt(r, failure)
		if failure == net.ErrClosed {
			failure = nil // there was nothing to prove
		}
	}
	if l.closed {
		for _, t := range again {
			l.settle(&t, errClientClosed(t.unsent()))
		}
		l.notify()
		return
	}
	l.queue.pushFront(again)
	for i := range again {
		l.queued += again[i].n
	}
	if failure != nil {
		l.client.failed(failure)
		if isRefusal(failure) {
			l.refuse(failure)
		}
	} else if r.count > 0 {
		l.client.worked()
	}
	l.hurried = l.hurried || slices.ContainsFunc(again, func(t lot) bool {
		b, ok := t.to.(*batch)
		return l.shutdown || ok && b.whole
	})
	l.notify()
}

// names reports whether a message was written with the identifier.
func (r *run) names(id uint32) bool { return id > 0 && int64(id) <= int64(r.count) }

// first takes the first n messages from a run that is over.
func (r *run) first(n int) []lot {
	for i := range r.lots {
		t := &r.lots[i]
		if n < t.n {
			first := slices.Clip(r.lots[:i])
			if n > 0 {
				first = append(first, t.cut(n))
			}
			r.lots = r.lots[i:]
			return first
		}
		n -= t.n
	}
	first := r.lots
	r.lots = nil
	return first
}

// settleAll settles those that have no fate; the caller holds l.mu.
func (l *line) settleAll(lots []lot, err error) {
	for i := range lots {
		if lots[i].messages != nil {
			l.settle(&lots[i], err)
		}
	}
}

// sendAgain returns what is left of a run after its first n messages, which the
// gateway did not process, to be sent again.
func (r *run) sendAgain(n int) (again []lot) {
	sent := r.first(max(0, r.written-n))
	for i := range sent {
		sent[i].sent = true
	}
	return slices.DeleteFunc(append(sent, r.first(r.count)...), func(t lot) bool { return t.messages == nil })
}

// doubt settles all that was written as in doubt because of err, but for what is to
// be sent again: what was not written, or is to arrive at least once. The caller
// holds l.mu.
func (l *line) doubt(r *run, err error) (again []lot) {
	if r.open == 0 {
		return nil
	}
	if !errors.Is(err, ErrInDoubt) {
		err = fmt.Errorf("%w: %w", ErrInDoubt, err)
	}
	l.lowerCapacity(r.count)
	for _, t := range r.first(r.written) {
		if t.messages == nil {
			continue
		}
		t.tries++
		if l.client.AtLeastOnce && int(t.tries) < l.client.attempts() && !l.closed {
			t.sent = true
			again = append(again, t)
		} else {
			l.settle(&t, err)
		}
	}
	return append(again, r.sendAgain(r.written)...)
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
	// Whoever writes may be busy for long.
	l.takeAll()
	if l.ticks++; l.ticks < firstTick { // after the largest number
		l.ticks = firstTick
	}
	late := func(since uint32, ticks uint32) bool { return since != 0 && l.ticks-since > ticks }
	l.endWhere(func(t *lot) bool { return late(t.tick, timeoutTicks) }, context.DeadlineExceeded)
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

// A sheet is where the goroutine that feeds a batch leaves messages for whoever
// holds the mutex of the line.
type sheet struct {
	in       atomic.Uint32 // how many were put
	out      uint32        // how many were taken; protected by line.mu
	yielded  int           // of the goroutine that yields
	messages [512]*Message
}

// put is false if there is room for one message alone. That one is for set, while
// the caller holds the mutex and has another sheet: a full one may be used again as
// soon as the mutex is free.
func (s *sheet) put(m *Message) bool {
	if s.in.Load() == uint32(len(s.messages))-1 {
		return false
	}
	s.set(m)
	return true
}

func (s *sheet) set(m *Message) {
	in := s.in.Load()
	s.messages[in] = m
	s.in.Store(in + 1)
}

// take returns the messages that were put and not taken.
func (s *sheet) take() []*Message {
	in, out := s.in.Load(), s.out
	s.out = in
	return s.messages[out:in]
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
