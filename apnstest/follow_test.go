package apnstest_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// dialConn connects to a service in memory.
func dialConn(t *testing.T, addr string, config *apns.Config) *apns.Conn {
	t.Helper()
	conn, err := apns.Dial(t.Context(), addr, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func ExampleServer_RecordsAfter() {
	server := apnstest.NewServer(nil)
	defer server.Close()
	conn, err := apns.Dial(context.Background(), server.HTTP2Addr, server.TokenConfig())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()

	seen := 0
	for _, text := range []string{"first", "second"} {
		m := &apns.Message{Token: "c0ffee", Payload: apns.AlertPayload(text), PushType: apns.PushTypeAlert}
		if err := conn.WritePushMsg(context.Background(), m); err != nil {
			fmt.Println(err)
			return
		}
		for _, r := range server.RecordsAfter(seen) {
			fmt.Println(r.Number, r.Outcome, string(r.Message.Payload))
			seen = r.Number
		}
	}
	// Output:
	// 1 accepted {"aps":{"alert":"first"}}
	// 2 accepted {"aps":{"alert":"second"}}
}

// RecordsAfter returns what Records returns, from a number on: also when records were dropped
// or cleared.
func TestRecordsAfter(t *testing.T) {
	s := apnstest.NewUnstartedServer(nil)
	s.MaxRecords = 3
	s.Start()
	defer s.Close()
	conn := dialConn(t, s.HTTP2Addr, s.TokenConfig())
	push := func() {
		t.Helper()
		if err := conn.WritePushMsg(t.Context(), &apns.Message{Token: "c0ffee", Payload: apns.AlertPayload("Hi")}); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 8 { // messages
		for after := -1; after <= n+1; after++ {
			var got, want []int
			for _, r := range s.RecordsAfter(after) {
				got = append(got, r.Number)
			}
			for number := max(1, after+1, n-2); number <= n; number++ {
				want = append(want, number)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%d messages, 3 kept: RecordsAfter(%d) has %v, want %v", n, after, got, want)
			}
		}
		push()
	}
	s.ClearRecords()
	if got := s.RecordsAfter(0); len(got) != 0 {
		t.Errorf("after ClearRecords there are %d records, want none", len(got))
	}
	push()
	if got := s.RecordsAfter(0); len(got) != 1 || got[0].Number != 1 {
		t.Errorf("after ClearRecords and a message got %v, want record 1", got)
	}
}

// Records have what the client sent if KeepRaw is set, and never a credential.
func TestKeepRaw(t *testing.T) {
	for _, keep := range []bool{false, true} {
		s := apnstest.NewUnstartedServer(func(m *apns.Message) error {
			if m.Token == "bad0" {
				return apns.StatusInvalidToken
			}
			return nil
		})
		s.KeepRaw, s.Latency = keep, time.Millisecond
		s.Start()
		defer s.Close()
		m := &apns.Message{Token: "c0ffee", Payload: apns.AlertPayload("Hi"), PushType: apns.PushTypeAlert, Priority: apns.PriorityPowerSaving}
		if err := dialConn(t, s.HTTP2Addr, s.TokenConfig()).WritePushMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		// The gateway discards the message after the rejected one. Each format has its bytes.
		var encoded [][]byte
		conn, err := tls.Dial("tcp", s.PushAddr, s.Config().TLS)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for i, token := range []string{"c0ffee", "bad0", "0a"} {
			b, err := apns.AppendMsg(nil, &apns.Message{ID: uint32(i + 1), Token: token, Payload: apns.AlertPayload("Hi"), Priority: apns.Priority(5 * (i % 2))})
			if err != nil {
				t.Fatal(err)
			}
			encoded = append(encoded, b)
		}
		if _, err := conn.Write(slices.Concat(encoded...)); err != nil {
			t.Fatal(err)
		}
		if err := s.Wait(t.Context(), 4); err != nil {
			t.Fatal(err)
		}
		records := s.Records()
		for i, r := range records {
			want, header, delay := apns.PushPort, "", time.Duration(0)
			if i == 0 {
				want = apns.ProviderPort
			}
			if i == 0 || i == 2 {
				delay = time.Millisecond // the others have no answer
			}
			if r.Port != want || r.Delay != delay {
				t.Errorf("record %d has port %d and delay %v, want %d and %v", r.Number, r.Port, r.Delay, want, delay)
			}
			for _, f := range r.Header {
				header += f.Name + "=" + f.Value + "\n"
			}
			if strings.Contains(header, "bearer") || keep && i == 0 != strings.Contains(header, "authorization=\n") {
				t.Errorf("record %d has header %q, want the name of the authorization field alone", r.Number, header)
			}
			for _, field := range []string{":method=POST\n", ":path=/3/device/c0ffee\n", "apns-priority=5\n"} {
				if strings.Contains(header, field) != (keep && i == 0) {
					t.Errorf("KeepRaw %t: record %d has header %q, field %q", keep, r.Number, header, field)
				}
			}
			if keep && i > 0 != bytes.Equal(r.Encoded, encoded[max(0, i-1)]) || !keep && r.Encoded != nil {
				t.Errorf("KeepRaw %t: record %d has bytes %x, want %x", keep, r.Number, r.Encoded, encoded[max(0, i-1)])
			}
		}
	}
}

func TestConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := apnstest.NewUnstartedServer(func(m *apns.Message) error {
			if m.Token == "aa" {
				return apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndGoAway, Delay: time.Minute}
			}
			return nil
		})
		s.InMemory = true
		s.Start()
		defer s.Close()
		if got := s.Connections(); len(got) != 0 {
			t.Errorf("got %v, want no connection", got)
		}
		withKey := dialConn(t, apns.Production, s.TokenConfig())
		time.Sleep(time.Second)
		withCert := dialConn(t, apns.Production, s.Config())
		binary := dialConn(t, "gateway.push.apple.com:2195", s.Config())
		if err := withKey.WritePushMsg(t.Context(), &apns.Message{Token: "c0ffee", Payload: apns.AlertPayload("Hi")}); err != nil {
			t.Fatal(err)
		}
		go withCert.WritePushMsg(t.Context(), &apns.Message{Token: "aa", Topic: apnstest.BundleID, Payload: apns.AlertPayload("Hi")})
		synctest.Wait()
		check := func(want ...string) {
			t.Helper()
			var got []string
			for _, c := range s.Connections() {
				got = append(got, fmt.Sprintf("%d: port %d, %s %q, %d certificates, key %q of %q, in flight %d, GOAWAY %t", c.Number, c.Port,
					tls.VersionName(c.TLS.Version), c.TLS.NegotiatedProtocol, len(c.TLS.PeerCertificates), c.KeyID, c.TeamID, c.InFlight, c.GoAwaySent))
				if c.RemoteAddr == "" || c.Opened.IsZero() {
					t.Errorf("connection %d has address %q and was opened %v", c.Number, c.RemoteAddr, c.Opened)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		}
		first := `1: port 443, TLS 1.3 "h2", 0 certificates, key "APNSTESTK1" of "APNSTESTT1", in flight 0, GOAWAY false`
		third := `3: port 2195, TLS 1.3 "", 1 certificates, key "" of "", in flight 0, GOAWAY false`
		check(first, `2: port 443, TLS 1.3 "h2", 1 certificates, key "" of "", in flight 1, GOAWAY false`, third)
		s1 := s.Connections()
		if opened := s1[1].Opened.Sub(s1[0].Opened); opened != time.Second {
			t.Errorf("the second was opened %v after the first, want 1s", opened)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		check(first, third) // the second has ended after its GOAWAY
		withKey.Close()
		binary.Close()
		synctest.Wait()
		check()
	})
}

func TestDevices(t *testing.T) {
	s := apnstest.NewServer(nil)
	defer s.Close()
	conn := dialConn(t, s.HTTP2Addr, s.TokenConfig())
	deadAt := time.Unix(1700000000, 0)
	// outcomes pushes to three tokens and returns the reasons.
	outcomes := func() string {
		var list []string
		for _, token := range []string{"aa", "bb", "cc"} {
			err := conn.WritePushMsg(t.Context(), &apns.Message{Token: token, Payload: apns.AlertPayload("Hi")})
			var reason apns.Reason
			if e, ok := err.(*apns.PushError); ok {
				reason = e.Reason
			} else if err != nil {
				t.Fatal(err)
			}
			list = append(list, string(reason))
		}
		return strings.Join(list, " ")
	}
	check := func(devices, want string) {
		t.Helper()
		var got []string
		for _, d := range s.Devices() {
			got = append(got, fmt.Sprint(d.Token, d.Topics, !d.DeadAt.IsZero()))
		}
		if strings.Join(got, " ") != devices {
			t.Errorf("got devices %q, want %q", got, devices)
		}
		if got := outcomes(); got != want {
			t.Errorf("got outcomes %q, want %q", got, want)
		}
	}
	check("", "  ")
	s.Register("com.example.b", "AA")
	s.Register(apnstest.BundleID, "aa")
	check("aa[com.example.app com.example.b] false", " BadDeviceToken BadDeviceToken")
	s.Unregister("BB", deadAt)
	check("aa[com.example.app com.example.b] false bb[] true", " Unregistered BadDeviceToken")
	if got := s.Feedback(); len(got) != 1 || got[0].Token != "BB" || !got[0].DeadAt.Equal(deadAt) {
		t.Errorf("got feedback %v, want bb", got)
	}
	s.ClearFeedback()
	if got := s.Feedback(); len(got) != 0 {
		t.Errorf("got feedback %v after ClearFeedback, want none", got)
	}
	s.ForgetDevices("AA")
	check("bb[] true", " Unregistered ") // none is registered
	s.ForgetDevices()
	check("", "  ")
}
