package examples_test

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

func TestPrune(t *testing.T) {
	var cut int
	s := apnstest.NewUnstartedServer(nil)
	s.OnConnect = func(port int, _ tls.ConnectionState) error {
		if port == apns.FeedbackPort {
			return apnstest.Fault{Cut: cut}
		}
		return nil
	}
	s.Start()
	defer s.Close()
	cert, key, ca, _ := files(t, s)
	dead := []apns.Feedback{
		{Token: token, DeadAt: time.Unix(1700000000, 0)},
		{Token: "0a", DeadAt: time.Unix(1700000001, 0)},
	}
	s.AddFeedback(dead...)
	stdout, stderr, status := run(t, nil, "prune", "-addr", s.FeedbackAddr, "-ca", ca, cert, key)
	if want := token + " dead_at: 1700000000\n0a dead_at: 1700000001\n2 dead devices.\n"; stdout != want || stderr != "" || status != 0 {
		t.Errorf("as the original: got %q, %q, %d; want %q", stdout, stderr, status, want)
	}
	s.AddFeedback(dead...)
	for _, want := range []string{token + " dead_at: 1700000000\n0a dead_at: 1700000001\n", ""} {
		stdout, stderr, status = run(t, nil, "prune", "-addr", s.FeedbackAddr, "-ca", ca, "-cert", cert, "-key", key)
		if count := fmt.Sprintf("%d dead devices.\n", strings.Count(want, "\n")); stdout != want || stderr != count || status != 0 {
			t.Errorf("with -cert: got %q, %q, %d; want %q, %q", stdout, stderr, status, want, count)
		}
	}
	cut = 1
	s.AddFeedback(dead...)
	stdout, stderr, status = run(t, nil, "prune", "-addr", s.FeedbackAddr, "-ca", ca, cert, key)
	want := "error: the list ends early, after 1 dead devices: apns: feedback record is cut short after 6 bytes, expected at least 7\n"
	if stdout != token+" dead_at: 1700000000\n" || stderr != want || status != 1 {
		t.Errorf("got %q, %q, %d; want one device and %q", stdout, stderr, status, want)
	}
	cut = 0
	long, longest := strings.Repeat("ab", 101), strings.Repeat("ab", 65535)
	invalid := []apns.Feedback{dead[0], {DeadAt: dead[0].DeadAt}, {Token: long, DeadAt: dead[1].DeadAt}, {Token: longest, DeadAt: dead[1].DeadAt}, dead[1]}
	s.AddFeedback(invalid...)
	stdout, stderr, status = run(t, nil, "prune", "-addr", s.FeedbackAddr, "-ca", ca, cert, key)
	said := `invalid: "" dead_at: 1700000000: token is empty, expected 1 to 100 bytes in hexadecimal` + "\n" +
		`invalid: "` + long + `" dead_at: 1700000001: token has 202 characters, expected at most 200 hexadecimal digits` + "\n" +
		`invalid: "` + longest + `" dead_at: 1700000001: token has 131070 characters, expected at most 200 hexadecimal digits` + "\n"
	const count = "records with an invalid token: 3 (printed to standard error, not listed)\n"
	if want := token + " dead_at: 1700000000\n0a dead_at: 1700000001\n2 dead devices.\n"; stdout != want || stderr != said+"error: "+count || status != 1 {
		t.Errorf("invalid tokens: got %q, %.2000q, %d; want %q, %.2000q", stdout, stderr, status, want, said+"error: "+count)
	}
	cut = 1
	s.AddFeedback(invalid...)
	stdout, stderr, status = run(t, nil, "prune", "-addr", s.FeedbackAddr, "-ca", ca, cert, key)
	if stdout != token+" dead_at: 1700000000\n" || stderr != said+want+count || status != 1 {
		t.Errorf("invalid tokens, cut short: got %q, %.2000q, %d; want one device and %.2000q", stdout, stderr, status, said+want+count)
	}
	s.AddFeedback(invalid[1], dead[1])
	stdout, stderr, status = run(t, nil, "prune", "-addr", s.FeedbackAddr, "-ca", ca, cert, key)
	if want := strings.Replace(want, "1 dead", "0 dead", 1); stdout != "" || !strings.HasSuffix(stderr, want+strings.Replace(count, "3", "1", 1)) || status != 1 {
		t.Errorf("no dead device, cut short: got %q, %q, %d; want %q", stdout, stderr, status, want)
	}
	stdout, stderr, status = run(t, nil, "prune", "-local")
	if strings.Count(stdout, " dead_at: ") != 3 || stderr != "3 dead devices.\n" || status != 0 {
		t.Errorf("-local: got %q, %q, %d; want 3 dead devices", stdout, stderr, status)
	}
	stdout, stderr, status = run(t, nil, "prune", "-addr", s.HTTP2Addr, "-ca", ca, cert, key)
	if stdout != "" || !strings.HasPrefix(stderr, "error: "+s.HTTP2Addr+" speaks HTTP/2, where there is no feedback service.\n") ||
		!strings.Contains(stderr, "apns.ReasonUnregistered") || status != 1 {
		t.Errorf("HTTP/2: got %q, %q, %d; want what to do instead", stdout, stderr, status)
	}
	for _, args := range [][]string{{cert, key}, {"-cert", cert, "-key", key}} {
		_, stderr, status := run(t, nil, "prune", args...)
		if want := "prune: no -addr, expected that of a feedback service (Apple closed its own in 2021), or -probe to ask the HTTP/2 server; see prune -h\n"; stderr != want || status != 2 {
			t.Errorf("%v: got %q, %d; want %q, 2", args, stderr, status, want)
		}
	}
	if _, stderr, status := run(t, nil, "prune", "x"); status != 2 || !strings.Contains(stderr, "number of arguments is 1, expected none or 2") {
		t.Errorf("got %q, %d; want the usage", stderr, status)
	}
}

func TestProbe(t *testing.T) {
	const bad, dead1, dead2 = "bad0", "dead01", "dead02"
	s := apnstest.NewServer(func(m *apns.Message) error {
		switch m.Token {
		case bad:
			return apns.ReasonBadDeviceToken
		case "0e":
			return &apns.PushError{HTTPStatus: 410, Reason: apns.ReasonExpiredToken, DeadAt: time.Unix(1700000002, 0)}
		case "0c":
			return apnstest.Fault{End: apnstest.EndRST}
		}
		return nil
	})
	defer s.Close()
	s.Unregister(dead1, time.Unix(1700000000, 0))
	s.Unregister(dead2, time.Unix(1700000001, 0))
	cert, key, ca, p8 := files(t, s)
	h2, binary := protocols(t, s)[0].args, protocols(t, s)[1].args
	list := file(t, "tokens.txt", []byte(token+"\n"+dead1+"\n\n0e\n"+dead2))
	const deadOut = dead1 + " dead_at: 1700000000\n" + dead2 + " dead_at: 1700000001\n0e dead_at: 1700000002\n"
	probe := func(args ...string) []string { return append([]string{"-probe"}, args...) }
	with := func(args ...string) []string { return slices.Concat(h2, probe(args...)) }
	h2Cert := []string{"-probe", "-addr", s.HTTP2Addr, "-ca", ca, "-tokens", list}
	for name, test := range map[string]struct {
		args           []string
		stdin          string
		stdout, stderr string // stderr is how it begins
		status         int
	}{
		"key":          {with("-tokens", list), "", deadOut, "3 dead devices.\n", 0},
		"certificate":  {append(h2Cert, "-cert", cert, "-key", key), "", deadOut, "3 dead devices.\n", 0},
		"arguments":    {append(h2Cert, cert, key), "", deadOut + "3 dead devices.\n", "", 0},
		"stdin":        {with("-tokens", "-"), token + "\n" + dead1, dead1 + " dead_at: 1700000000\n", "1 dead devices.\n", 0},
		"none dead":    {with("-tokens", "-"), token, "", "0 dead devices.\n", 0},
		"no tokens":    {with("-tokens", "-"), "", "", "0 dead devices.\n", 0},
		"not all":      {with("-tokens", "-"), token + "\nxyz0\n" + bad + "\n" + dead1 + "\n" + bad, dead1 + " dead_at: 1700000000\n", "standard input:2: token has 'x' at index 0, expected only hexadecimal digits\n1 dead devices.\nerror: of 2 tokens it is not known whether they are dead: BadDeviceToken: 1, invalid: 1\n", 1},
		"in doubt":     {with("-tokens", "-"), "0c", "", "0 dead devices.\nerror: of 1 tokens it is not known whether they are dead: in doubt: 1\nthe first of those errors: apns: in doubt: ", 1},
		"wrong team":   {with("-team-id", "APNSTESTT2", "-tokens", "-"), token, "", "0 dead devices.\nerror: of 1 tokens it is not known whether they are dead: not sent: 1\nthe first of those errors: apns: not sent: the server refuses this sender: InvalidProviderToken (HTTP status 403)\n", 1},
		"binary":       {slices.Concat(binary, probe("-tokens", list)), "", "", "error: " + s.PushAddr + " speaks the binary protocol, where the answer to a push does not say whether its device is dead; expected HTTP/2.", 1},
		"binary key":   {with("-addr", s.PushAddr, "-tokens", list), "", "", "error: apns: ", 1},
		"nobody there": {with("-addr", "127.0.0.1:1", "-tokens", list), "", "", "error: apns: connecting to 127.0.0.1:1: ", 1},
		"no such file": {with("-tokens", "/nonexistent"), "", "", "error: open /nonexistent: ", 1},
		"no such p8":   {with("-p8", "/nonexistent", "-tokens", list), "", "", "error: apns: reading the auth key: open /nonexistent: ", 1},

		"without tokens":   {with(), "", "", "prune: -probe without -tokens, expected a file of device tokens, or - for standard input; see prune -h\n", 2},
		"without probe":    {[]string{"-tokens", list}, "", "", "prune: -tokens, -sandbox, -p8, -key-id, -team-id or -bundle-id without -probe, expected both: a feedback service has no use for it; see prune -h\n", 2},
		"p8 alone":         {probe("-tokens", list, "-p8", p8, "-bundle-id", "a"), "", "", "prune: -p8, -key-id and -team-id go together, expected all three or none; see prune -h\n", 2},
		"p8 without topic": {with("-tokens", list, "-bundle-id", ""), "", "", "prune: -p8 without -bundle-id, ", 2},
		"p8 and cert":      {with("-tokens", list, "-cert", cert), "", "", "prune: both -p8 and a certificate, ", 2},
		"no credentials":   {probe("-tokens", list), "", "", "prune: no credentials, ", 2},
		"sandbox, addr":    {with("-tokens", list, "-sandbox"), "", "", "prune: both -sandbox and -addr, ", 2},
		"local and addr":   {with("-tokens", list, "-local"), "", "", "prune: -local with an address or credentials, ", 2},
		"one argument":     {with("-tokens", list, "x"), "", "", "prune: number of arguments is 1, expected none or 2: certificate file, key file; see prune -h\n", 2},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(s.Records())
			stdout, stderr, status := run(t, []byte(test.stdin), "prune", test.args...)
			wantLines, gotLines := sorted(strings.Split(test.stdout, "\n")), sorted(strings.Split(stdout, "\n"))
			if !slices.Equal(gotLines, wantLines) || !strings.HasPrefix(stderr, test.stderr) || test.stderr == "" && stderr != "" || status != test.status {
				t.Errorf("got  %q, %q, %d\nwant %q, %q, %d", stdout, stderr, status, test.stdout, test.stderr, test.status)
			}
			for _, r := range s.Records()[before:] {
				m := r.Message
				if errors.Is(r.Err, apns.ReasonInvalidProviderToken) {
					continue // the server did not check the rest
				}
				if m.PushType != apns.PushTypeBackground || string(m.Payload) != `{"aps":{"content-available":1}}` || !m.Expiry.Equal(time.Unix(0, 0)) {
					t.Errorf("sent %+v, want a background push, now or never", m)
				}
				if strings.HasPrefix(name, "binary") {
					t.Errorf("sent %+v on the binary protocol", m)
				}
			}
		})
	}
	if n := len(s.Messages(apnstest.Accepted)); n == 0 {
		t.Error("nothing was sent")
	}

	stdout, stderr, status := run(t, nil, "prune", "-local", "-probe")
	if strings.Count(stdout, " dead_at: ") != 3 || stderr != "3 dead devices.\n" || status != 0 {
		t.Errorf("-local: got %q, %q, %d; want 3 dead devices", stdout, stderr, status)
	}
	if full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0); err == nil {
		defer full.Close()
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "prune"), "-local", "-probe")
		var stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = full, &stderr
		if err := cmd.Run(); err == nil || !strings.HasPrefix(stderr.String(), "error: write /dev/stdout: ") {
			t.Errorf("on a full disk: got %v, %q; want an error", err, &stderr)
		}
	}
	const one = "deadbeef00112233445566778899aabbccddeeff0102030405060708090a0b0c"
	stdout, stderr, status = run(t, []byte(numbered(2)[1]+"\n"+one), "prune", "-local", "-probe", "-tokens", "-")
	if !strings.HasPrefix(stdout, one+" dead_at: ") || strings.Count(stdout, "\n") != 1 || stderr != "1 dead devices.\n" || status != 0 {
		t.Errorf("-local -tokens: got %q, %q, %d; want one dead device", stdout, stderr, status)
	}
}

// A server that says that a device is dead, and not since when.
func TestProbeWithoutTime(t *testing.T) {
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(410)
		io.WriteString(w, `{"reason":"Unregistered"}`)
	}))
	web.EnableHTTP2 = true
	web.StartTLS()
	defer web.Close()
	s := apnstest.NewServer(nil)
	defer s.Close()
	cert, key, _, _ := files(t, s)
	ca := file(t, "ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}))
	began := time.Now().Unix()
	stdout, stderr, status := run(t, []byte(token), "prune", "-probe", "-addr", web.Listener.Addr().String(), "-ca", ca, "-cert", cert, "-key", key, "-tokens", "-")
	var at int64
	if _, err := fmt.Sscanf(stdout, token+" dead_at: %d\n", &at); err != nil || at < began || at > time.Now().Unix() || stderr != "1 dead devices.\n" || status != 0 {
		t.Errorf("got %q, %q, %d; want the time of the answer", stdout, stderr, status)
	}
}

// After Ctrl-C prune says that the list is not complete.
func TestProbeInterrupted(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("nothing can be interrupted there")
	}
	s := apnstest.NewServer(nil)
	defer s.Close()
	s.Unregister("dead", time.Unix(1700000000, 0))
	program := start(t, "prune", slices.Concat(protocols(t, s)[0].args, []string{"-probe", "-tokens", "-"})...)
	fmt.Fprintf(program.stdin, "dead\n%s\n", token)
	if err := s.Wait(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	program.interrupt(t)
	stdout, stderr, status := program.wait(t)
	if want := "1 dead devices.\nerror: the rest of standard input was not asked about\n"; stdout != "dead dead_at: 1700000000\n" || stderr != want || status != 1 {
		t.Errorf("got %q, %q, %d; want one dead device and %q", stdout, stderr, status, want)
	}
}
