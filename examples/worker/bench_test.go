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
// messages are accepted at once. The queue, the worker and the push server are in this process.
func BenchmarkWorker(b *testing.B) {
	for _, name := range []string{"accepted at once", "pushed"} {
		b.Run(name, func(b *testing.B) {
			const n = 50_000
			var cpu time.Duration
			for range b.N {
				b.StopTimer()
				r := newRig(b, nil, func(r *rig) { r.server.MaxRecords = -1 })
				if name != "pushed" {
					r.worker.client = acceptor{}
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
				before := ownCPU()
				b.StartTimer()
				r.start()
				wait(b, r.queue.js)
				b.StopTimer()
				cpu += ownCPU() - before
				r.drain()
			}
			b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "messages/s")
			b.ReportMetric(float64(cpu.Microseconds())/float64(n*b.N), "µs-CPU/message")
		})
	}
}
