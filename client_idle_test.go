package apns_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// A connection that died while idle costs the next messages a second, and none of them is
// in doubt: they wait for the answer to a PING, another connection is dialed after a second
// without it, and the old one is closed after ten.
func TestIdleConnDied(t *testing.T) {
	for _, idle := range []time.Duration{time.Minute, 5 * time.Minute, 59 * time.Minute} {
		for _, n := range []int{1, 5, 300} {
			for _, maxConns := range []int{0, 1} {
				t.Run(fmt.Sprintf("%v, %d messages, MaxConns %d", idle, n, maxConns), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { testIdleConnDied(t, idle, n, maxConns) })
				})
			}
		}
	}
}

func testIdleConnDied(t *testing.T, idle time.Duration, n, maxConns int) {
	server := inMemory(t, nil)
	network := newNetwork(server)
	c := network.client(t, func(c *apns.Client) { c.MaxConns = maxConns })
	if _, err := c.Push(t.Context(), message(1)); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	time.Sleep(time.Second / 2)
	network.conn(0).cut()
	time.Sleep(idle)
	start := time.Now()
	wantAccepted(t, allAtOnce(t.Context(), c, n))
	const wait = time.Second // also where MaxConns is 1: the old one does not count
	wantTook(t, start, wait, wait)
	if got := network.dialedAt(1).Sub(start); got != wait {
		t.Errorf("another connection was dialed after %v, want %v", got, wait)
	}
	times := acceptedTimes(server)
	for i := range n {
		if got := times[device(i).Token]; got != 1 {
			t.Errorf("message %d was accepted %d times, want once", i, got)
		}
	}
	if s := c.Stats(); s.InDoubt != 0 || s.Resent != 0 || s.Connected != 2 {
		t.Errorf("Stats are %+v, want none in doubt or resent, and 2 connections", s)
	}
	time.Sleep(20 * time.Second)
	if got := network.conn(0).closed().Sub(start); got < 10*time.Second || got > 11*time.Second {
		t.Errorf("the dead connection was closed after %v, want 10s", got)
	}
	if !network.conn(1).closed().IsZero() || network.dialed() != 2 {
		t.Errorf("the second connection is closed, or another was dialed: %d", network.dialed())
	}
}

// A server that is slow to answer the PING is not replaced within the second, and the
// message is sent once.
func TestIdleConnAnswersLate(t *testing.T) {
	for _, late := range []time.Duration{0, 900 * time.Millisecond, 3 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			server := inMemory(t, nil)
			network := newNetwork(server)
			c := network.client(t)
			if _, err := c.Push(t.Context(), message(1)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Minute)
			network.conn(0).hold(late)
			start := time.Now()
			if _, err := c.Push(t.Context(), message(2)); err != nil {
				t.Error(err)
			}
			wantTook(t, start, min(late, time.Second), min(late, time.Second))
			dials := 1
			if late > time.Second {
				dials = 2
			}
			time.Sleep(30 * time.Second)
			if got := network.dialed(); got != dials {
				t.Errorf("an answer after %v: %d dials, want %d", late, got, dials)
			}
			if !network.conn(0).closed().IsZero() {
				t.Errorf("an answer after %v: the connection is closed, want it kept", late)
			}
			if got := len(server.Records()); got != 2 {
				t.Errorf("an answer after %v: the server got %d messages, want 2", late, got)
			}
		})
	}
}

// After up to an hour without work the connection is still the same, and nothing was
// written meanwhile: no PINGs. ("Sending notification requests to APNs")
func TestIdleConnIsKept(t *testing.T) {
	for _, idle := range []time.Duration{time.Second, 59 * time.Second, time.Minute, 30 * time.Minute, 59 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			server := inMemory(t, nil)
			network := newNetwork(server)
			c := network.client(t)
			for i := range 3 {
				start := time.Now()
				if _, err := c.Push(t.Context(), device(i)); err != nil {
					t.Error(err)
				}
				wantTook(t, start, 0, 0)
				synctest.Wait()
				before := network.conn(0).written()
				time.Sleep(idle)
				if got := network.conn(0).written() - before; got != 0 {
					t.Errorf("%d writes while idle for %v, want none", got, idle)
				}
			}
			if got := network.dialed(); got != 1 {
				t.Errorf("idle for %v: %d dials, want 1", idle, got)
			}
		})
	}
}

// A connection on the binary protocol has no PING with which to find out that it died. So
// without anything to confirm it is closed after 10 s, and the next message has another.
func TestIdleConnBinary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newNetwork(inMemory(t, nil))
		network.protocol = ""
		c := network.client(t)
		if err := c.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := network.dialed()
		last := network.conn(before - 1)
		time.Sleep(9 * time.Second)
		if !last.closed().IsZero() {
			t.Error("after 9 s the connection is closed, want it open")
		}
		time.Sleep(2 * time.Second)
		if last.closed().IsZero() {
			t.Error("after 11 s the connection is open, want it closed")
		}
		if _, err := c.Push(t.Context(), message(1)); err != nil {
			t.Error(err)
		}
		if got := network.dialed(); got != before+1 {
			t.Errorf("%d dials for the message after that, want one", got-before)
		}
	})
}

// After an hour it is closed, politely.
func TestIdleConnIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newNetwork(inMemory(t, nil))
		c := network.client(t)
		if _, err := c.Push(t.Context(), message(1)); err != nil {
			t.Error(err)
		}
		start := time.Now()
		time.Sleep(2 * time.Hour)
		if got := network.conn(0).closed().Sub(start); got < time.Hour || got > time.Hour+time.Minute {
			t.Errorf("the connection was closed after %v, want an hour", got)
		}
		if _, err := c.Push(t.Context(), message(2)); err != nil {
			t.Error(err)
		}
		if got := network.dialed(); got != 2 {
			t.Errorf("%d dials, want 2", got)
		}
	})
}

// While messages are answered now and then, however seldom, no PING is needed; where one
// waits for its answer, the PING comes after ten seconds of silence.
func TestPingsWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, inTurn(nil, answerAfter(35*time.Second)))
		network := newNetwork(server)
		c := network.client(t)
		if _, err := c.Push(t.Context(), message(1)); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		before := network.conn(0).written()
		if _, err := c.Push(t.Context(), message(2)); err != nil {
			t.Error(err)
		}
		if got := network.conn(0).written() - before; got < 3 || got > 4 {
			t.Errorf("%d writes for a message that is answered after 35s, want 3 or 4: itself and PINGs", got)
		}
	})
}

// Two connections died while idle: the messages still go over another one.
func TestIdleConnsDied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, func(*apns.Message) error { return answerAfter(time.Second) }, func(s *apnstest.Server) { s.StreamLimit = 10 })
		network := newNetwork(server)
		c := network.client(t, func(c *apns.Client) { c.MaxConns = 3 })
		wantAccepted(t, allAtOnce(t.Context(), c, 100))
		open := network.dialed()
		if open < 2 {
			t.Fatalf("%d connections, want several for the sake of this test", open)
		}
		time.Sleep(time.Second)
		for i := range open {
			network.conn(i).cut()
		}
		time.Sleep(10 * time.Minute)
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() { wantAccepted(t, allAtOnce(t.Context(), c, 10)) })
		wg.Wait()
		wantTook(t, start, time.Second, 12*time.Second)
		if s := c.Stats(); s.InDoubt != 0 {
			t.Errorf("Stats are %+v, want none in doubt", s)
		}
	})
}
