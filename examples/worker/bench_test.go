package main

import (
	"context"
	"fmt"
	"iter"
	"testing"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// An acceptor accepts each message at once, and pushes none.
type acceptor struct{}

func (acceptor) PushAll(_ context.Context, messages iter.Seq[*apns.Message]) iter.Seq[apns.Result] {
	return func(yield func(apns.Result) bool) {
		for m := range messages {
			if !yield(apns.Result{Message: m}) {
				return
			}
		}
	}
}

func (acceptor) Shutdown(context.Context) error { return nil }
func (acceptor) Close() error                   { return nil }

// A worker whose messages are pushed should have 0.6 of the messages a second of one whose
// messages are accepted at once: of-accepted-at-once is that ratio. The queue, the worker and
// the push server are in this process. The two take turns, so that other load on the machine
// concerns both.
func BenchmarkWorker(b *testing.B) {
	const n = 50_000
	var atOnce, pushed, cpu time.Duration
	for range b.N {
		took, _ := benchmarkRun(b, n, acceptor{})
		atOnce += took
		took, used := benchmarkRun(b, n, nil)
		pushed += took
		cpu += used
	}
	all := float64(n * b.N)
	b.ReportMetric(all/atOnce.Seconds(), "accepted-at-once/s")
	b.ReportMetric(all/pushed.Seconds(), "messages/s")
	b.ReportMetric(atOnce.Seconds()/pushed.Seconds(), "of-accepted-at-once")
	b.ReportMetric(float64(cpu.Microseconds())/all, "µs-CPU/message")
}

// benchmarkRun measures how long a worker takes for n messages, with a Client unless it gets
// something in its place.
func benchmarkRun(b *testing.B, n int, inPlace pusher) (took, cpu time.Duration) {
	b.Helper()
	r := newRig(b, nil, func(r *rig) { r.server.MaxRecords = -1 })
	if inPlace != nil {
		r.worker.client = inPlace
	}
	p := &publisher{js: r.queue.js}
	for i := range n {
		body := encode(b, apns.Message{Token: demoToken(i), Topic: apnstest.BundleID, Payload: apns.AlertPayload("Hello")})
		if err := p.publish(body, fmt.Sprint(i)); err != nil {
			b.Fatal(err)
		}
	}
	if err := p.wait(); err != nil {
		b.Fatal(err)
	}
	start, used := time.Now(), ownCPU()
	r.start()
	wait(b, r.queue.js)
	took, cpu = time.Since(start), ownCPU()-used
	r.drain()
	return took, cpu
}
