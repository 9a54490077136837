package apnstest_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/internal/h2"
	"example.com/apns/internal/hpack"
	"example.com/apns/internal/plain"
)

// FuzzHTTP2 sends the server any bytes after the preface. Whatever they are, the
// server sends valid frames and ends the connection.
func FuzzHTTP2(f *testing.F) {
	s := apnstest.NewUnstartedServer(func(m *apns.Message) error {
		switch m.CollapseID {
		case "1":
			return apns.ReasonBadTopic
		case "2":
			return apnstest.Fault{End: apnstest.EndRST}
		case "3":
			return apnstest.Fault{End: apnstest.EndGoAway, Err: apns.StatusNoError}
		case "4":
			return apnstest.Fault{End: apnstest.EndGoAwayUnprocessed}
		}
		return nil
	})
	s.InMemory = true
	s.StreamLimit = 5
	s.HTTP2 = apnstest.HTTP2Settings{InitialWindow: 100, MaxHeaderListSize: 1000, HeaderTableSize: 100}
	s.Start()
	f.Cleanup(s.Close)

	hello := h2.AppendSettings(nil, h2.SettingValue{Setting: h2.SettingInitialWindowSize, Value: 10})
	f.Add(appendPush(slices.Concat(hello, h2.AppendSettingsAck(nil)), 1))
	for _, id := range []string{"1", "2", "3", "4"} {
		b := appendHeaders(slices.Clone(hello), 1, 0, with("apns-collapse-id", id)...)
		b = appendPush(appendData(b, 1, h2.FlagEndStream, "{}"), 3)
		f.Add(h2.AppendRSTStream(h2.AppendWindowUpdate(b, 1, 9), 3, h2.CodeCancel))
	}
	f.Add(appendHeaders(appendData(appendHeaders(slices.Clone(hello), 1, 0, good...), 1, h2.FlagPadded, "\x01{}\x00"), 1, h2.FlagEndStream, "x", "y"))
	f.Add(h2.AppendGoAway(h2.AppendPing(hello, 0, [8]byte{}), 0, 0, nil))

	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := s.Config().DialContext(plain.Context(t.Context()), "tcp", "localhost:443")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go func() {
			c.Write(append([]byte(preface), b...))
			c.(interface{ CloseWrite() error }).CloseWrite()
		}()
		if err := checkServerFrames(c); err != nil {
			t.Error(err)
		}
	})
}

// checkServerFrames reads to the end of a connection and checks what the server
// sends.
func checkServerFrames(c io.Reader) error {
	r := h2.NewReader(c)
	d := hpack.NewDecoder(4096, 16<<10)
	answering := make(map[uint32]bool)
	last := uint32(h2.MaxStream)
	for {
		f, ok, err := r.Next()
		switch {
		case err != nil:
			return err
		case !ok:
			if err := r.Fill(); err == io.EOF && len(r.Unread()) == 0 {
				return nil
			} else if err != nil {
				return err
			}
			continue
		}
		switch f.Type {
		case h2.TypeHeaders:
			var v h2.Validator
			v.Reset(h2.ResponseHeader)
			if err := d.Decode(bytes.Clone(f.Payload), v.Add); err != nil {
				return err
			}
			if text := v.Malformed(); text != "" || answering[f.Stream] {
				return errors.New("a malformed answer, or a second one: " + text)
			}
			answering[f.Stream] = !f.Has(h2.FlagEndStream)
		case h2.TypeData:
			if !answering[f.Stream] {
				return errors.New("DATA without HEADERS")
			}
			answering[f.Stream] = !f.Has(h2.FlagEndStream)
		case h2.TypeRSTStream:
			answering[f.Stream] = false
		case h2.TypeGoAway:
			if f.Uint32() > last {
				return errors.New("the last stream of GOAWAY rises")
			}
			last = f.Uint32()
		case h2.TypePushPromise, h2.TypePriority, h2.TypeContinuation:
			return errors.New("a frame that servers do not send: " + f.Type.String())
		}
	}
}
