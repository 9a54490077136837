package apns

import (
	"context"
	"fmt"
)

// A pushCall is one call of Push: a source of one message.
type pushCall struct {
	delivery
	ctx  context.Context
	done chan struct{} // has a value when the delivery is finished
}

// push sends a message and waits for its outcome.
func (d *dispatcher) push(ctx context.Context, m *Message) (Receipt, error) {
	c, _ := d.calls.Get().(*pushCall)
	if c == nil {
		c = &pushCall{done: make(chan struct{}, 1)}
	}
	r := &c.delivery
	r.message, r.source = m, c
	r.checked, r.expires, r.err = d.checkMessage(m)
	d.deliver(ctx, c)
	receipt, err := r.receipt, r.err
	c.ctx, c.delivery = nil, delivery{}
	d.calls.Put(c)
	return receipt, err
}

// deliver hands the delivery of a call over, unless it has an error already, and waits for
// its outcome.
func (d *dispatcher) deliver(ctx context.Context, c *pushCall) {
	c.ctx = ctx
	r := &c.delivery
	if r.err == nil && ctx.Err() != nil {
		r.err = fmt.Errorf("%w: %w", ErrNotSent, ctx.Err())
	}
	if deadline, ok := ctx.Deadline(); ok {
		r.deadline = max(1, deadline.Sub(d.epoch))
	}
	d.handOver(r)
	select {
	case <-c.done:
	case <-ctx.Done():
		d.abandon(r, ctx.Err())
		<-c.done
	}
}

func (c *pushCall) report(list)      { c.done <- struct{}{} }
func (c *pushCall) isFlushing() bool { return false }

func (c *pushCall) noteBackOffs(int64) {}

func (c *pushCall) context() context.Context { return c.ctx }
