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

// FuzzHTTP2 sends the server any bytes after the preface. The server must send only valid
// frames, and end the connection.
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

// checkServerFrames reads the frames of the server to the end of the connection, and checks
// them.
func checkServerFrames(c io.Reader) error {
	r := h2.NewReader(c)
	d := hpack.NewDecoder(4096, 16<<10)
	responding := make(map[uint32]bool)
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
			if text := v.Malformed(); text != "" || responding[f.Stream] {
				return errors.New("a malformed response, or a second one: " + text)
			}
			responding[f.Stream] = !f.Has(h2.FlagEndStream)
		case h2.TypeData:
			if !responding[f.Stream] {
				return errors.New("DATA without HEADERS")
			}
			responding[f.Stream] = !f.Has(h2.FlagEndStream)
		case h2.TypeRSTStream:
			responding[f.Stream] = false
		case h2.TypeGoAway:
			if f.Uint32() > last {
				return errors.New("the last stream of GOAWAY increases")
			}
			last = f.Uint32()
		case h2.TypePushPromise, h2.TypePriority, h2.TypeContinuation:
			return errors.New("a frame that a server must not send: " + f.Type.String())
		}
	}
}
