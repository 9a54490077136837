package apns_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// What a Conn reads from the feedback service.

func deadDevices(n int) []apns.Feedback {
	var list []apns.Feedback
	for i := range n {
		list = append(list, apns.Feedback{Token: fmt.Sprintf("%02x%s", i, token[2:]), DeadAt: expiry.Add(time.Duration(i) * time.Second)})
	}
	return list
}

func dialFeedback(t *testing.T, s *apnstest.Server) *apns.Conn {
	t.Helper()
	return dial(t, "feedback.push.apple.com:2196", s.Config())
}

// "The feedback service's list is cleared after you read it." ("The Feedback
// Service" in the chapter "Binary Provider API")
func TestFeedback(t *testing.T) {
	for _, fault := range []apnstest.Fault{{}, {Split: 1}, {Split: 7}, {End: apnstest.EndOneSegment}, {End: apnstest.EndFIN}, {Delay: time.Hour}} {
		synctest.Test(t, func(t *testing.T) {
			s := inMemory(t, nil, func(s *apnstest.Server) {
				s.OnConnect = func(port int, _ tlsState) error {
					if port != apns.FeedbackPort {
						t.Errorf("OnConnect: port %d, want %d", port, apns.FeedbackPort)
					}
					return fault
				}
			})
			want := deadDevices(5)
			s.AddFeedback(want...)
			c := dialFeedback(t, s)
			var got []apns.Feedback
			for f, err := range c.Feedback(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, f)
			}
			if !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			for range 2 {
				if f, err := c.ReadFeedbackMsg(t.Context()); err != io.EOF {
					t.Errorf("got %v, %v; want io.EOF", f, err)
				}
			}
			for f, err := range dialFeedback(t, s).Feedback(t.Context()) {
				t.Errorf("got %v, %v from a second connection; want nothing", f, err)
			}
		})
	}
}

// The list is cut at each byte: the whole records come, and then an error if
// there is more.
func TestFeedbackCutShort(t *testing.T) {
	list := deadDevices(3)
	const size = 38
	for cut := range 3*size + 1 {
		for _, end := range []apnstest.End{apnstest.EndCloseNotify, apnstest.EndOneSegment, apnstest.EndRST} {
			synctest.Test(t, func(t *testing.T) {
				s := inMemory(t, nil, func(s *apnstest.Server) {
					s.OnConnect = func(int, tlsState) error { return apnstest.Fault{Cut: cut, End: end} }
				})
				s.AddFeedback(list...)
				c := dialFeedback(t, s)
				whole, rest := (3*size-cut)/size, (3*size-cut)%size
				if end == apnstest.EndRST {
					time.Sleep(time.Second) // and what was not read is gone
					whole, rest = 0, 1
				}
				n := 0
				var last error
				for f, err := range c.Feedback(t.Context()) {
					if last = err; err != nil {
						break
					}
					if f != list[n] {
						t.Errorf("cut %d: got %v, want %v", cut, f, list[n])
					}
					n++
				}
				switch {
				case n != whole:
					t.Errorf("cut %d: got %d records, want %d", cut, n, whole)
				case end == apnstest.EndRST:
					wantErr(t, last, syscall.ECONNRESET)
				case rest == 0 && last != nil:
					t.Errorf("cut %d: got %v, want the end of the list", cut, last)
				case rest > 0:
					wantErr(t, last, io.ErrUnexpectedEOF)
				}
			})
		}
	}
}

// A context that ends in the middle of a record loses no byte of it.
func TestFeedbackContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		want := deadDevices(20)
		var list []byte
		for _, f := range want {
			list, _ = apns.AppendFeedback(list, f)
		}
		s := inMemory(t, nil)
		certs := s.Certificates()
		pair, err := tls.X509KeyPair(certs.ServerCert, certs.ServerKey)
		if err != nil {
			t.Fatal(err)
		}
		go func() { // a byte every second
			c := tls.Server(server, &tls.Config{Certificates: []tls.Certificate{pair}})
			defer c.Close()
			for i := range list {
				time.Sleep(time.Second)
				c.Write(list[i : i+1])
			}
		}()
		config := s.Config()
		config.DialContext = func(context.Context, string, string) (net.Conn, error) { return client, nil }
		c := dial(t, "localhost:2196", config)

		var got []apns.Feedback
		timeouts := 0
		for {
			ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
			f, err := c.ReadFeedbackMsg(ctx)
			cancel()
			if err == io.EOF {
				break
			}
			if err != nil {
				wantErr(t, err, context.DeadlineExceeded)
				timeouts++
				continue
			}
			got = append(got, f)
		}
		if !slices.Equal(got, want) || timeouts < 100 {
			t.Errorf("got %v after %d timeouts, want %v after many", got, timeouts, want)
		}
	})
}

// A context that has ended gets no record, not even one that was read already. The next
// call returns that one.
func TestFeedbackContextBetweenRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, nil)
		s.AddFeedback(deadDevices(2)...)
		c := dialFeedback(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := c.ReadFeedbackMsg(ctx); err != nil {
			t.Fatal(err)
		}
		cancel()
		_, err := c.ReadFeedbackMsg(ctx) // which is there already
		wantErr(t, err, context.Canceled)
		if f, err := c.ReadFeedbackMsg(t.Context()); err != nil || f != deadDevices(2)[1] {
			t.Errorf("got %v, %v; want the second record", f, err)
		}
	})
}

// Many goroutines read one list; Close ends those that wait.
func TestFeedbackConcurrently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, nil, func(s *apnstest.Server) {
			s.OnConnect = func(int, tlsState) error { return apnstest.Fault{End: apnstest.EndSilence} }
		})
		s.AddFeedback(deadDevices(200)...)
		c := dialFeedback(t, s)
		var mu sync.Mutex
		seen := make(map[apns.Feedback]bool)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				for f, err := range c.Feedback(t.Context()) {
					if err != nil {
						wantErr(t, err, net.ErrClosed)
						return
					}
					mu.Lock()
					seen[f] = true
					mu.Unlock()
				}
				t.Error("the list has an end, want it to stay open")
			})
		}
		time.Sleep(time.Second)
		c.Close()
		wg.Wait()
		if len(seen) != 200 {
			t.Errorf("got %d different records, want 200", len(seen))
		}
	})
}
