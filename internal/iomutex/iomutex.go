// Package iomutex has a mutex for one direction of a connection, reading or writing. A
// context can end the wait for the mutex, and interrupt the I/O of whoever has locked it.
package iomutex

import (
	"context"
	"net"
	"sync"
	"time"
)

// A Mutex lets one goroutine at a time read from a connection, or write to it. That
// goroutine calls Lock, any number of times Start and Stop with its I/O between them, and
// Unlock.
type Mutex struct {
	setDeadline func(time.Time)
	locked      chan struct{} // holds a value while the mutex is locked

	// Only the goroutine that has locked the mutex uses the next field.

	watch *watch // the context of the last Start; nil if there is none
}

// New returns a Mutex that is not locked. To interrupt I/O it calls setDeadline with a
// time in the past, and later with the zero time, which means no deadline. If the
// connection has no deadlines, setDeadline must interrupt the I/O in another way.
func New(setDeadline func(time.Time)) *Mutex {
	return &Mutex{setDeadline: setDeadline, locked: make(chan struct{}, 1)}
}

// Lock locks the mutex. If it is locked already, Lock waits until it is unlocked, or
// until ctx ends or done is closed: then the error is ctx.Err() or net.ErrClosed. It
// looks at ctx and done only if it has to wait.
func (m *Mutex) Lock(ctx context.Context, done <-chan struct{}) error {
	select {
	case m.locked <- struct{}{}:
		return nil
	default:
	}
	select {
	case m.locked <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-done:
		return net.ErrClosed
	}
}

// Unlock unlocks the mutex.
func (m *Mutex) Unlock() { <-m.locked }

// Start is called before I/O. If ctx ends before Stop is called, the I/O fails with
// os.ErrDeadlineExceeded. If ctx has ended already, Start returns ctx.Err(), and there is
// nothing to stop.
//
// The mutex goes on watching ctx after Stop, because the next Start often has the same
// context, and to watch a new one costs more than to encode a message. So Start allocates
// nothing for the context of the last call, nor for one that cannot end.
func (m *Mutex) Start(ctx context.Context) error {
	done := ctx.Done()
	if done == nil {
		return nil
	}
	if m.watch == nil || m.watch.done != done {
		m.unwatch()
		m.watch = newWatch(ctx, m.setDeadline)
	}
	m.watch.setActive(true)
	// If ctx ended before that, the watch may have found nothing to interrupt.
	if err := ctx.Err(); err != nil {
		m.watch.setActive(false)
		return err
	}
	return nil
}

// Stop is called after I/O. From then on the end of the context interrupts nothing, and
// the connection is without a deadline again.
func (m *Mutex) Stop() {
	if m.watch != nil {
		m.watch.setActive(false)
	}
}

// Close waits until the mutex is unlocked, and stops watching the last context. The
// mutex can still be used.
func (m *Mutex) Close() {
	m.locked <- struct{}{}
	m.unwatch()
	m.Unlock()
}

func (m *Mutex) unwatch() {
	if m.watch != nil {
		m.watch.close()
		m.watch = nil
	}
}

// A watch interrupts I/O when a context ends.
//
// That may happen at any moment, and interrupt runs on a goroutine of its own. So it
// holds mu while it sets the deadline, and setActive holds mu while it removes it. Either
// interrupt comes first, and setActive(false) removes the deadline; or setActive(false)
// comes first, and interrupt finds nothing to do. A deadline never outlives the I/O that
// it was meant for.
type watch struct {
	done        <-chan struct{} // of the context
	setDeadline func(time.Time)
	cancel      func() bool   // prevents the call of interrupt; false if that has begun
	returned    chan struct{} // closed when interrupt returns

	mu          sync.Mutex // guards following, and the deadline of the connection
	active      bool       // there is I/O to interrupt
	interrupted bool       // the deadline is in the past
}

func newWatch(ctx context.Context, setDeadline func(time.Time)) *watch {
	w := &watch{done: ctx.Done(), setDeadline: setDeadline, returned: make(chan struct{})}
	w.cancel = context.AfterFunc(ctx, w.interrupt)
	return w
}

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

func (w *watch) interrupt() {
	defer close(w.returned)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.active {
		w.interrupted = true
		w.setDeadline(longAgo)
	}
}

func (w *watch) setActive(active bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.active = active
	if w.interrupted {
		w.interrupted = false
		w.setDeadline(time.Time{})
	}
}

// close ends the watch. It waits for a call of interrupt that has begun, so that nothing
// is left running.
func (w *watch) close() {
	if !w.cancel() {
		<-w.returned
	}
}
