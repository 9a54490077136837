package apns_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/internal/plain"
)

// What a Conn makes of a gateway's packets, in whichever pieces they arrive. They are
// given to it without TLS.

// A fakeGateway is one end of a connection in memory. A write waits until the other end has
// read it.
type fakeGateway struct {
	t *testing.T
	net.Conn
}

// gatewayThat returns the configuration of a gateway that does what serve does, and
// then closes the connection.
func gatewayThat(t *testing.T, serve func(fakeGateway)) *apns.Config {
	client, server := net.Pipe()
	var serving sync.WaitGroup
	serving.Go(func() {
		defer server.Close()
		serve(fakeGateway{t, server})
	})
	t.Cleanup(func() {
		client.Close()
		serving.Wait()
	})
	return &apns.Config{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return &plain.Conn{Conn: client}, nil
	}}
}

// takeMessages reads messages, whose IDs must count from first to last.
func (g fakeGateway) takeMessages(first, last uint32) {
	for id := first; id <= last; id++ {
		want, err := apns.BuildMsg(message(id))
		if err != nil {
			g.t.Error(err)
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(g, got); err != nil || !bytes.Equal(got, want) {
			g.t.Errorf("gateway read % x, %v; want message %d", got, err, id)
		}
	}
}

// takeBarrier reads a barrier and returns its ID.
func (g fakeGateway) takeBarrier() uint32 {
	got := make([]byte, 1+4+4+2+2) // command, ID, expiry, and no token and no payload
	if _, err := io.ReadFull(g, got); err != nil {
		g.t.Errorf("gateway read % x, %v; want a barrier", got, err)
	}
	id := binary.BigEndian.Uint32(got[1:])
	if want := append([]byte{1}, got[1:5]...); !bytes.Equal(got, append(want, make([]byte, 8)...)) {
		g.t.Errorf("gateway read % x, want a barrier", got)
	}
	return id
}

// send writes packets, and then the bytes of more, in pieces of so many bytes; 0 means in
// one piece. The client may end the connection before it has read all of it.
func (g fakeGateway) send(size int, packets []apns.PushError, more string) {
	var b []byte
	for _, p := range packets {
		b = apns.AppendError(b, &p)
	}
	b = append(b, more...)
	if size == 0 {
		size = max(1, len(b))
	}
	for piece := range slices.Chunk(b, size) {
		if _, err := g.Write(piece); err != nil {
			return
		}
	}
}

// acceptedUpTo is a packet of status 0.
func acceptedUpTo(id uint32) apns.PushError { return apns.PushError{ID: id} }

// pieces are the sizes in which packets of 6 bytes arrive.
var pieces = []int{0, 1, 4, 6, 7, 17}

// writeMessages writes messages, whose IDs count from first to last.
func writeMessages(t *testing.T, c *apns.Conn, first, last uint32) {
	t.Helper()
	for id := first; id <= last; id++ {
		if err := c.WritePushMsg(t.Context(), message(id)); err != nil {
			t.Fatal(err)
		}
	}
}

// Packets of status 0 do not end the connection, whichever IDs they have. A rejection
// after them does.
func TestAcceptedAndThenRejected(t *testing.T) {
	many := make([]apns.PushError, 40) // more than fit into one read
	for i := range many {
		many[i] = acceptedUpTo(1)
	}
	for name, packets := range map[string][]apns.PushError{
		"none":            {},
		"one":             {acceptedUpTo(3)},
		"each":            {acceptedUpTo(1), acceptedUpTo(2), acceptedUpTo(3)},
		"without its ID":  {acceptedUpTo(0)},
		"unknown IDs":     {acceptedUpTo(99), acceptedUpTo(1<<32 - 1)},
		"the same, later": {acceptedUpTo(3), acceptedUpTo(2)},
		"many":            many,
	} {
		for _, size := range pieces {
			t.Run(fmt.Sprintf("%s, pieces of %d", name, size), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := dial(t, "gateway.push.apple.com:2195", gatewayThat(t, func(g fakeGateway) {
						g.takeMessages(1, 3)
						g.send(size, packets, "")
						g.takeMessages(4, 5)
						g.send(size, append(slices.Clip(packets), apns.PushError{ID: 4, Status: apns.StatusInvalidToken}), "")
					}))
					writeMessages(t, c, 1, 3)
					synctest.Wait()
					if err := c.CheckForError(); err != nil {
						t.Errorf("CheckForError: %v, want nil: nothing was rejected", err)
					}
					writeMessages(t, c, 4, 5)
					synctest.Wait()
					wantPushError(t, c.CheckForError(), 4, apns.StatusInvalidToken)
					wantErr(t, c.WritePushMsg(t.Context(), message(6)), apns.ErrNotSent)
					wantPushError(t, c.Shutdown(t.Context()), 4, apns.StatusInvalidToken)
				})
			})
		}
	}
}

// What follows packets of status 0 is read as if they had not been there.
func TestAcceptedAndThenCutShort(t *testing.T) {
	for name, test := range map[string]struct{ then, want string }{
		"the end":          {"", "the server closed the connection and said nothing"},
		"half a packet":    {"\x08\x08\x00", "the server closed the connection: 08 08 00: error packet is cut short after 3 bytes"},
		"another protocol": {"HTTP/1.1", "the peer is no gateway of the binary protocol: expected an error packet (command 8), got \"H"},
	} {
		for _, size := range pieces {
			t.Run(fmt.Sprintf("%s, pieces of %d", name, size), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := dial(t, "gateway.push.apple.com:2195", gatewayThat(t, func(g fakeGateway) {
						g.takeMessages(1, 2)
						g.send(size, []apns.PushError{acceptedUpTo(1), acceptedUpTo(2)}, test.then)
					}))
					writeMessages(t, c, 1, 2)
					synctest.Wait()
					err := c.CheckForError()
					wantErr(t, err, apns.ErrInDoubt)
					if !strings.Contains(fmt.Sprint(err), test.want) {
						t.Errorf("got  %v\nwant %s", err, test.want)
					}
				})
			})
		}
	}
}

// The answers to a barrier, alone and after packets of status 0. Those that confirm the
// messages may name the barrier with any status, even status 0, or name nothing and say
// what the barrier has none of.
func TestBarrierAnswers(t *testing.T) {
	const barrier = 1 << 31 // stands for the ID of the barrier
	inDoubt := apns.ErrInDoubt
	for name, test := range map[string]struct {
		first  uint32 // the ID of the first of two messages
		answer []apns.PushError
		want   error // nil: the messages are confirmed
	}{
		"status 0":                         {1, []apns.PushError{acceptedUpTo(barrier)}, nil},
		"status 0, and another":            {1, []apns.PushError{acceptedUpTo(barrier), acceptedUpTo(barrier)}, nil},
		"status 0, and a rejection":        {1, []apns.PushError{acceptedUpTo(barrier), {ID: barrier, Status: 2}}, nil},
		"status 0 of the last message":     {1, []apns.PushError{acceptedUpTo(2)}, inDoubt},
		"status 0 without an ID":           {1, []apns.PushError{acceptedUpTo(0)}, inDoubt},
		"status 0 of an unknown message":   {1, []apns.PushError{acceptedUpTo(77)}, inDoubt},
		"missing token":                    {1, []apns.PushError{{ID: barrier, Status: 2}}, nil},
		"missing token, no ID":             {1, []apns.PushError{{Status: 2}}, nil},
		"missing payload, no ID":           {1, []apns.PushError{{Status: 4}}, nil},
		"invalid token, no ID":             {1, []apns.PushError{{Status: 8}}, &apns.PushError{Status: 8}},
		"shutdown, no ID":                  {1, []apns.PushError{{Status: 10}}, &apns.PushError{Status: 10}},
		"missing token, a message with 0":  {0, []apns.PushError{{Status: 2}}, &apns.PushError{Status: 2}},
		"missing payload, a message has 0": {0, []apns.PushError{{Status: 4}}, &apns.PushError{Status: 4}},
		"status 0, a message has 0":        {0, []apns.PushError{acceptedUpTo(barrier)}, nil},
		"no answer":                        {1, nil, inDoubt},
	} {
		for _, before := range [][]apns.PushError{nil, {acceptedUpTo(0), acceptedUpTo(1)}} {
			for _, size := range pieces {
				t.Run(fmt.Sprintf("%s, after %d, pieces of %d", name, len(before), size), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						c := dial(t, "gateway.push.apple.com:2195", gatewayThat(t, func(g fakeGateway) {
							g.takeMessages(test.first, test.first+1)
							id := g.takeBarrier()
							packets := slices.Concat(before, test.answer)
							for i := range packets {
								if packets[i].ID == barrier {
									packets[i].ID = id
								}
							}
							g.send(size, packets, "")
						}))
						writeMessages(t, c, test.first, test.first+1)
						ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
						defer cancel()
						wantShutdown(t, c, c.Shutdown(ctx), test.want)
					})
				})
			}
		}
	}
}

// wantShutdown checks the error of Shutdown, and that CheckForError agrees. A *PushError
// must be the same; another error must match.
func wantShutdown(t *testing.T, c *apns.Conn, got, want error) {
	t.Helper()
	switch want := want.(type) {
	case nil:
		if got != nil {
			t.Errorf("Shutdown: %v, want nil", got)
		}
		wantErr(t, c.CheckForError(), net.ErrClosed)
	case *apns.PushError:
		wantPushError(t, got, want.ID, want.Status)
		wantPushError(t, c.CheckForError(), want.ID, want.Status)
	default:
		wantErr(t, got, want)
		wantErr(t, c.CheckForError(), want)
	}
}

// A nil message is invalid.
func TestNilMessageBinaryConn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := dialPush(t, inMemory(t, nil))
		wantClass(t, c.WritePushMsg(t.Context(), nil), "invalid", apns.StatusMissingToken)
	})
}

// A connection that ends in the middle of an error packet is described once.
func TestHalfPacketPrefix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, always(apnstest.Fault{Err: apns.StatusInvalidToken, Cut: 3}))
		_, err := newClient(t, s).Push(t.Context(), message(1))
		if strings.Count(err.Error(), "apns: ") != 1 {
			t.Errorf("got %q, want the prefix once", err)
		}
	})
}
