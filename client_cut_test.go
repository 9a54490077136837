package apns_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"iter"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/internal/plain"
)

// A countingConn is a limitedConn from the first record of application data on:
// with TLS 1.2, that is after the handshake.
type countingConn struct {
	*limitedConn
	after int // bytes
	began bool
}

func (c *countingConn) Write(p []byte) (int, error) {
	if !c.began && p[0] == 23 {
		c.began = true
		c.limit(-1, c.after)
	}
	return c.limitedConn.Write(p)
}

// The first connection is cut at each byte of what the client writes: of three
// messages and the barrier. Those that the server can have had whole are in
// doubt; the others are resent over the next connection, and accepted. Without
// TLS any number of messages can have gone through, with it all or none.
func TestClientConnectionCutWhileWriting(t *testing.T) {
	size := 13 // of the barrier
	for m := range messagesFrom(1, 3) {
		b, err := apns.BuildMsg(m)
		if err != nil {
			t.Fatal(err)
		}
		size += len(b)
	}
	for _, secure := range []bool{false, true} {
		all := make(map[balance]int)
		most := size + 1
		if secure {
			most += 2 * 30 // for what a record has around it
		}
		for n := 0; n < most; n++ {
			if secure && raceEnabled {
				n += 5 // handshakes take their time
			}
			got, had, sum := cutAt(t, n, secure, messagesFrom(1, 3))
			all[sum]++
			proved := sum == balance{Accepted: 3} && len(had) == 3
			for id, err := range got {
				switch {
				case proved && n >= size:
				case had[id]:
					wantErr(t, err, apns.ErrInDoubt)
				case err != nil:
					t.Errorf("cut at %d: message %d did not reach the server whole, and was not resent: %v", n, id, err)
				}
			}
			if len(got) != 3 || sum.Accepted+sum.InDoubt != 3 {
				t.Errorf("cut at %d: got %+v", n, sum)
			}
		}
		want := 4 // 0, 1, 2 or 3 in doubt
		if secure {
			want = 2 // where all are in one record
		}
		if len(all) < want {
			t.Errorf("TLS %v: got %v, want %d different outcomes or more", secure, all, want)
		}
	}
}

// The first connection is cut among TLS records that are written together. The
// messages in those that the server can have had whole are in doubt, and the others
// are resent, and accepted.
func TestClientConnectionCutAmongRecords(t *testing.T) {
	const messages, record = 40, 16<<10 + 29 // with what TLS 1.2 puts around it
	msgs := func(yield func(*apns.Message) bool) {
		for m := range messagesFrom(1, messages) {
			m.Payload = fmt.Appendf(nil, `{"aps":{"alert":"%2000d"}}`, m.ID)
			if !yield(m) {
				return
			}
		}
	}
	for records := range 5 {
		for _, more := range []int{-1, 0, 1, 5, record / 2} {
			n := max(0, records*record+more)
			got, had, sum := cutAt(t, n, true, msgs)
			for id, err := range got {
				if had[id] {
					wantErr(t, err, apns.ErrInDoubt)
				} else if err != nil {
					t.Errorf("cut at %d: message %d did not reach the server whole, and was not resent: %v", n, id, err)
				}
			}
			// A record has seven or eight of them whole.
			whole := n / record
			if len(got) != messages || sum.Accepted+sum.InDoubt != messages || sum.InDoubt < whole*7 || sum.InDoubt > whole*8 {
				t.Errorf("cut at %d: got %+v, want 7 or 8 in doubt for each of %d records", n, sum, whole)
			}
		}
	}
}

// cutAt sends messages over a first connection that is cut after so many bytes that
// the client writes, and a second that is not. It returns their outcomes, and which the
// server had over the first one.
func cutAt(t *testing.T, n int, secure bool, msgs iter.Seq[*apns.Message]) (got outcomes, had map[uint32]bool, sum balance) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, nil, func(s *apnstest.Server) { s.TLS = &tls.Config{MaxVersion: tls.VersionTLS12} })
		c := newClient(t, s)
		next, first := c.Config.DialContext, true
		c.Config.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if !secure {
				ctx = plain.Context(ctx)
			}
			time.Sleep(time.Millisecond) // until all messages wait, so that they are written together
			conn, err := next(ctx, network, addr)
			if first && err == nil {
				first = false
				cut := &limitedConn{Conn: conn, read: -1, write: n}
				conn = cut
				if secure {
					cut.write = -1
					conn = &countingConn{limitedConn: cut, after: n}
				}
			}
			if err == nil && !secure {
				conn = &plain.Conn{Conn: conn}
			}
			return conn, err
		}
		got = collect(t, c.PushAll(t.Context(), msgs))
		synctest.Wait() // for the server to be done
		sum = got.check(t, s)
		had = make(map[uint32]bool)
		for _, r := range s.Records() {
			if r.Conn == 1 {
				had[numberOf(r.Message)] = true
			}
		}
	})
	return got, had, sum
}
