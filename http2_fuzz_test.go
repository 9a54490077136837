package apns_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/internal/h2"
	"example.com/apns/internal/hpack"
	"example.com/apns/internal/plain"
)

// The server sends arbitrary bytes after its SETTINGS: every push has one outcome,
// nothing hangs, and nothing is left running.
func FuzzHTTP2Bytes(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	f.Add(h2.AppendHeaders(nil, h2.FlagEndStream, 1, []byte{0x88}, h2.MinMaxFrameSize))
	f.Add(h2.AppendGoAway(nil, 3, h2.CodeNo, []byte(`{"reason":"Shutdown"}`)))
	f.Add(h2.AppendRSTStream(nil, 3, h2.CodeRefusedStream))
	f.Add(h2.AppendWindowUpdate(nil, 0, h2.MaxWindow))
	f.Fuzz(func(t *testing.T, said []byte) { pushToPeer(t, said) })
}

// The same with valid frames, or nearly, in any order.
func FuzzHTTP2Frames(f *testing.F) {
	f.Add([]byte("\x00\x01\x00\x00\x03\x00\x00\x05\x00"))
	f.Add([]byte("\x01\x03\x00\x02\x03\x00\x03\x01\x07\x04\x01\x00"))
	f.Add([]byte("\x05\x03\x00\x05\x01\x00\x00\x01\x00\x06\x00\x02\x07\x00\x01\x08\x00\x05"))
	f.Fuzz(func(t *testing.T, ops []byte) {
		var said []byte
		for ; len(ops) >= 3; ops = ops[3:] {
			said = appendAnyFrame(said, ops[0], uint32(ops[1]%12), ops[2])
		}
		pushToPeer(t, said)
	})
}

// appendAnyFrame appends a frame that a server may send, or nearly.
func appendAnyFrame(b []byte, kind byte, stream uint32, arg byte) []byte {
	status := []byte{0x88} // 200
	switch arg % 5 {
	case 1:
		status = []byte{0x8c} // 400
	case 2:
		status = []byte{0x8e} // 500
	case 3:
		status = hpack.AppendLiteral(nil, ":status", "103")
	case 4:
		status = hpack.AppendLiteral(append([]byte{}, 0x8c), "retry-after", "1")
	}
	end := h2.Flags(arg>>7) & h2.FlagEndStream
	switch kind % 14 {
	case 0:
		return h2.AppendHeaders(b, h2.FlagEndStream, stream, status, h2.MinMaxFrameSize)
	case 1:
		return h2.AppendHeaders(b, 0, stream, status, h2.MinMaxFrameSize)
	case 2:
		return h2.AppendFrame(b, h2.TypeData, end, stream, []byte(`{"reason":"BadDeviceToken"}`)[:min(27, int(arg))])
	case 3:
		return h2.AppendRSTStream(b, stream, h2.Code(arg%16))
	case 4:
		return h2.AppendSettings(b, h2.SettingValue{Setting: h2.SettingMaxConcurrentStreams, Value: uint32(arg % 8)})
	case 5:
		return h2.AppendSettings(b, h2.SettingValue{Setting: h2.SettingInitialWindowSize, Value: uint32(arg) * 200})
	case 6:
		return h2.AppendSettings(b, h2.SettingValue{Setting: h2.SettingHeaderTableSize, Value: uint32(arg) * 20}, h2.SettingValue{Setting: h2.SettingMaxHeaderListSize, Value: uint32(arg) * 10})
	case 7:
		return h2.AppendGoAway(b, stream, h2.Code(arg%16), []byte(`{"reason":"Shutdown"}`))
	case 8:
		return h2.AppendWindowUpdate(b, stream, uint32(arg)+1)
	case 9:
		return h2.AppendPing(b, h2.Flags(arg)&h2.FlagAck, [8]byte{7: arg})
	case 10:
		return h2.AppendFrame(b, h2.Type(10+arg%200), h2.Flags(arg), stream, status)
	case 11:
		return h2.AppendFrame(b, h2.TypePriority, 0, stream, binary.BigEndian.AppendUint32([]byte{arg}, stream+2)[:5])
	case 12: // a good answer, whole
		b = h2.AppendHeaders(b, 0, stream, []byte{0x8c}, h2.MinMaxFrameSize)
		return h2.AppendFrame(b, h2.TypeData, h2.FlagEndStream, stream, []byte(`{"reason":"BadDeviceToken"}`))
	}
	return h2.AppendSettingsAck(b)
}

// pushToPeer pushes to a server that says the given bytes after its SETTINGS: half of
// them when messages are in flight, and the rest a minute later.
func pushToPeer(t *testing.T, said []byte) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		config := &apns.Config{DialContext: func(context.Context, string, string) (net.Conn, error) {
			return &plain.Conn{Conn: client, Protocol: "h2"}, nil
		}}
		var serving sync.WaitGroup
		defer serving.Wait()
		serving.Go(func() { io.Copy(io.Discard, server) })
		serving.Go(func() {
			defer server.Close()
			server.Write(h2.AppendSettings(nil))
			time.Sleep(time.Second)
			server.Write(said[:len(said)/2])
			time.Sleep(time.Minute)
			server.Write(said[len(said)/2:])
			time.Sleep(time.Minute)
		})
		c, err := apns.Dial(t.Context(), "localhost:443", config)
		if err != nil {
			t.Fatal(err)
		}
		const pushes = 5
		outcomes := make(chan error, pushes)
		for i := range uint32(pushes) {
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i+1)*30*time.Second)
				defer cancel()
				m := message(i)
				m.Topic = "com.example.app"
				m.APNsID = "123e4567-e89b-12d3-a456-4266554400a0"
				outcomes <- c.WritePushMsg(ctx, m)
			}()
		}
		for range pushes {
			err := <-outcomes
			n := 0
			for _, is := range []bool{isPushError(err), errors.Is(err, apns.ErrNotSent), errors.Is(err, apns.ErrInDoubt)} {
				if is {
					n++
				}
			}
			if n != 1 && err != nil {
				t.Errorf("%v has %d outcomes, want 1", err, n)
			}
		}
		start := time.Now()
		c.Close()
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("Close took %v", d)
		}
		server.Close()
	})
}

func isPushError(err error) bool {
	_, ok := errors.AsType[*apns.PushError](err)
	return ok
}
