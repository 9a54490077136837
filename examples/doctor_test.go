package examples_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// checkChart compares the lines that doctor printed with regular expressions.
func checkChart(t *testing.T, chart string, want []string) {
	t.Helper()
	got := strings.Split(strings.TrimSuffix(chart, "\n"), "\n")
	matches := func(line, pattern string) bool { return regexp.MustCompile("^(?:" + pattern + ")$").MatchString(line) }
	if !slices.EqualFunc(got, want, matches) {
		t.Errorf("got\n%s\nwant\n%s", chart, strings.Join(want, "\n"))
	}
}

const (
	keyLine    = `ok       credentials  auth key APNSTESTK1 of team APNSTESTT1; the server knows its environments and topics`
	certLine   = `ok       credentials  certificate for com.example.app; for an environment that it does not name; expires on \d{4}-\d\d-\d\d, in 36\d days`
	topicLine  = `ok       topic        com.example.app`
	h2Line     = `ok       connection   127.0.0.1:\d+ with TLS 1.3 and HTTP/2 \(ALPN h2\), after \d+ms`
	binaryLine = `ok       connection   127.0.0.1:\d+ with TLS 1.3 and the binary protocol \(no ALPN\), after \d+ms`
	serverLine = `ok       server       certificate of "localhost", signed by "apnstest CA \w+", valid until \d{4}-\d\d-\d\d`
	probedLine = `ok       probe        the server takes the credentials and the topic: its answer is BadDeviceToken, as it should be`
	unprobed   = `unknown  probe        the server judges the credentials with the first push: -probe sends one`
	clockLine  = `unknown  clock        this machine's says \S+Z`
	noDate     = clockLine + `, and the server does not tell its own`
	healthy    = `No problem was found.`
	sick       = `problems: 1`
)

func TestDoctor(t *testing.T) {
	s := apnstest.NewServer(func(m *apns.Message) error {
		if m.Topic == "com.example.other" {
			return apns.ReasonTopicDisallowed
		}
		return apns.ReasonBadDeviceToken
	})
	defer s.Close()
	accepting := apnstest.NewServer(nil)
	defer accepting.Close()
	cert, key, ca, p8 := files(t, s)
	otherCert, otherKey, otherCA, _ := files(t, accepting)
	ids := []string{"-p8", p8, "-key-id", apnstest.KeyID, "-team-id", apnstest.TeamID}
	with := func(more ...string) []string {
		return slices.Concat([]string{"-addr", s.HTTP2Addr, "-ca", ca}, ids, more)
	}
	withCert := func(more ...string) []string {
		return append([]string{"-addr", s.HTTP2Addr, "-ca", ca, "-cert", cert, "-key", key}, more...)
	}
	expired := signed(t, &x509.Certificate{NotAfter: time.Now().Add(-time.Hour)})
	soon := signed(t, &x509.Certificate{NotAfter: time.Now().Add(29*24*time.Hour + time.Minute)})
	sandbox := signed(t, &x509.Certificate{NotAfter: time.Now().AddDate(1, 0, 0), ExtraExtensions: []pkix.Extension{
		{Id: asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 1}, Value: []byte{5, 0}},
	}})
	const advice = `                      `
	for name, test := range map[string]struct {
		args   []string
		want   []string
		status int
	}{
		"local":               {[]string{"-local"}, []string{keyLine, topicLine, h2Line, serverLine, unprobed, clockLine, "", healthy}, 0},
		"local probe":         {[]string{"-local", "-probe"}, []string{keyLine, topicLine, h2Line, serverLine, probedLine, noDate, "", healthy}, 0},
		"key":                 {with(), []string{keyLine, `unknown  topic        there is no -bundle-id`, h2Line, serverLine, unprobed, clockLine, "", healthy}, 0},
		"key, probe":          {with("-bundle-id", "com.example.app", "-probe"), []string{keyLine, topicLine, h2Line, serverLine, probedLine, noDate, "", healthy}, 0},
		"certificate":         {withCert(), []string{certLine, topicLine, h2Line, serverLine, unprobed, clockLine, "", healthy}, 0},
		"certificate, probe":  {withCert("-probe"), []string{certLine, topicLine, h2Line, serverLine, probedLine, noDate, "", healthy}, 0},
		"accepts every token": {[]string{"-addr", accepting.HTTP2Addr, "-ca", otherCA, "-cert", otherCert, "-key", otherKey, "-probe"}, []string{certLine, topicLine, h2Line, serverLine, `ok       probe        the server takes the credentials, and even a token that no device has`, noDate, "", healthy}, 0},
		"binary":              {withCert("-addr", s.PushAddr), []string{certLine, topicLine, binaryLine, serverLine, unprobed, clockLine, "", healthy}, 0},
		"binary, probe":       {withCert("-addr", s.PushAddr, "-probe"), []string{certLine, topicLine, binaryLine, serverLine, probedLine, clockLine, "", healthy}, 0},
		"expires soon": {withCert("-cert", soon, "-key", ""), []string{
			`warning  credentials  certificate for com.example.app; .*; expires on \S+, in 29 days`, topicLine, h2Line, serverLine, unprobed, clockLine, "", healthy}, 0},

		"expired":       {withCert("-cert", expired, "-key", ""), []string{`problem  credentials  .*certificate is expired since .*`, "", sick}, 1},
		"another key's": {withCert("-key", otherKey), []string{`problem  credentials  .* another certificate.*`, "", sick}, 1},
		"another app's": {withCert("-bundle-id", "a.b"), []string{`problem  credentials  .*certificate is for com.example.app, expected a.b`, "", sick}, 1},
		"no such file":  {with("-p8", "/nonexistent"), []string{`problem  credentials  reading the auth key: open /nonexistent: .*`, "", sick}, 1},
		"wrong team": {with("-team-id", "APNSTESTT2", "-bundle-id", "com.example.app", "-probe"), []string{
			strings.ReplaceAll(keyLine, "TT1", "TT2"), topicLine, h2Line, serverLine,
			`problem  probe        not sent: the server refuses this sender: InvalidProviderToken \(HTTP status 403\)`,
			advice + `The key, its key ID and the team ID do not belong together, or the two IDs are swapped, or the key is revoked, or this machine's clock is wrong\. .*`, noDate, "", sick}, 1},
		"wrong topic": {with("-bundle-id", "com.example.other", "-probe"), []string{
			keyLine, `ok       topic        com.example.other`, h2Line, serverLine,
			`problem  probe        message rejected: TopicDisallowed \(HTTP status 400\)`,
			advice + `The credentials are not for this topic\. .*`, noDate, "", sick}, 1},
		"key to a gateway": {with("-addr", s.PushAddr), []string{
			keyLine, `unknown .*`, binaryLine, serverLine, `problem  server       .*did not negotiate HTTP/2.*`, clockLine, "", sick}, 1},
		"a gateway's other authority": {[]string{"-addr", s.PushAddr, "-ca", ca, "-cert", otherCert, "-key", otherKey}, []string{
			certLine, topicLine, binaryLine, serverLine, `problem  server       .*certificate.*`,
			advice + `The server demands a certificate of an authority that it trusts\. .*`, clockLine, "", sick}, 1},
		"not trusted": {with("-ca", otherCA), []string{keyLine, `unknown .*`, `problem  server       TLS handshake with .*unknown authority`,
			advice + `This machine does not trust the server's certificate\. .*`, clockLine, "", sick}, 1},
		"nobody there": {with("-addr", "127.0.0.1:1"), []string{keyLine, `unknown .*`, `problem  server       connecting to 127.0.0.1:1: .*`,
			advice + `The server cannot be reached\. .*`, clockLine, "", sick}, 1},
		"sandbox alone": {[]string{"-cert", sandbox, "-ca", ca}, []string{
			`ok       credentials  certificate for com.example.app; for the sandbox alone; .*`,
			`problem  credentials  BadCertificateEnvironment`, advice + `The certificate is for the other environment\. .*`, topicLine, "", sick}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, status := run(t, nil, "doctor", test.args...)
			checkChart(t, stdout, test.want)
			if stderr != "" || status != test.status {
				t.Errorf("got %q, %d; want nothing, %d", stderr, status, test.status)
			}
		})
	}
	for _, r := range slices.Concat(s.Records(), accepting.Records()) {
		if m := r.Message; m.Token != strings.Repeat("00", 32) && m.Token != "" { // a barrier, or the request for the clock
			t.Errorf("doctor sent to %s, want the impossible token only", m.Token)
		}
	}
	for want, args := range map[string][]string{
		"doctor: number of arguments is 1, expected none; see doctor -h\n":                                                                   {"-local", "x"},
		"doctor: number of arguments is 2, expected none; see doctor -h\n":                                                                   {"extra", "x"},
		"doctor: flag provided but not defined: -x; see doctor -h\n":                                                                         {"-x"},
		"doctor: -probe with -p8 and without -bundle-id, expected the app's bundle ID: the key is for all of a team's apps; see doctor -h\n": with("-probe"),
		"doctor: no credentials, expected -p8 with -key-id and -team-id, or -cert with -key; or -local, which needs none; see doctor -h\n":   nil,
	} {
		if stdout, stderr, status := run(t, nil, "doctor", args...); stdout != "" || stderr != want || status != 2 {
			t.Errorf("%v: got %q, %q, %d; want %q, 2", args, stdout, stderr, status, want)
		}
	}
}

// signed returns a file with a certificate for com.example.app and its key, signed by itself.
func signed(t *testing.T, template *x509.Certificate) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(1)
	template.NotBefore = time.Now().Add(-48 * time.Hour)
	template.Subject = pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}, Value: "com.example.app"}}}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return file(t, "signed.pem", append(b, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...))
}

// Each reason with which a server refuses the sender is explained. The exit status is 1.
func TestDoctorRefused(t *testing.T) {
	for _, reason := range []apns.Reason{
		apns.ReasonBadCertificate, apns.ReasonBadCertificateEnvironment, apns.ReasonExpiredProviderToken, apns.ReasonInvalidProviderToken,
		apns.ReasonMissingProviderToken, apns.ReasonBadEnvironmentKeyIDInToken, "BadEnvironmentKeyInToken", apns.ReasonForbidden,
		apns.ReasonUnrelatedKeyIDInToken, apns.ReasonTooManyProviderTokenUpdates, apns.ReasonTopicDisallowed, apns.ReasonBadTopic,
	} {
		t.Run(string(reason), func(t *testing.T) {
			s := apnstest.NewServer(func(*apns.Message) error { return reason })
			defer s.Close()
			_, _, ca, p8 := files(t, s)
			stdout, stderr, status := run(t, nil, "doctor", "-addr", s.HTTP2Addr, "-ca", ca, "-probe",
				"-p8", p8, "-key-id", apnstest.KeyID, "-team-id", apnstest.TeamID, "-bundle-id", apnstest.BundleID)
			if stderr != "" || status != 1 {
				t.Errorf("got %q, %d; want nothing, 1", stderr, status)
			}
			checkChart(t, stdout, []string{keyLine, topicLine, h2Line, serverLine,
				`problem  probe        .*` + string(reason) + ` \(HTTP status \d+\).*`, ` {22}[A-Z].*\.`, noDate, "", sick})
		})
	}
}

// The clock is compared with the Date of the server.
func TestDoctorClock(t *testing.T) {
	var skew atomic.Int64 // of the server, in nanoseconds
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(time.Duration(skew.Load())).UTC().Format(http.TimeFormat))
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"reason":"BadDeviceToken"}`)
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	ca := file(t, "ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	test := apnstest.NewServer(nil)
	defer test.Close()
	_, _, _, p8 := files(t, test)
	for _, want := range []struct {
		skew   time.Duration
		line   string
		status int
	}{
		{0, `ok       clock        this machine's says \S+Z, which is [0-2]s off the server's`, 0},
		{-2 * time.Hour, `problem  clock        this machine's says \S+Z, which is 2h0m[0-2]s off the server's: set it`, 1},
		{2 * time.Hour, `problem  clock        this machine's says \S+Z, which is -1h59m5\ds off the server's: set it|.*which is -2h0m0s off.*`, 1},
	} {
		skew.Store(int64(want.skew))
		stdout, stderr, status := run(t, nil, "doctor", "-addr", s.Listener.Addr().String(), "-ca", ca, "-probe",
			"-p8", p8, "-key-id", apnstest.KeyID, "-team-id", apnstest.TeamID, "-bundle-id", apnstest.BundleID)
		if !regexp.MustCompile(`(?m)^(`+want.line+`)$`).MatchString(stdout) || !strings.Contains(stdout, "ok       probe ") || stderr != "" || status != want.status {
			t.Errorf("a server whose clock is %v ahead: got %q, %q, %d; want %q, %d", want.skew, stdout, stderr, status, want.line, want.status)
		}
	}
}
