package interop_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// A target is a server of apnstest to which programs push. It rejects tokens that begin with
// "bad".
type target struct {
	*apnstest.Server
	dir     string // has the files of writeFiles, and the file "payload"
	payload string
	bearer  string // an authorization header
}

func newTarget(t *testing.T) *target {
	s := apnstest.NewServer(func(m *apns.Message) error {
		if strings.HasPrefix(m.Token, "bad") {
			return apns.ReasonBadDeviceToken
		}
		return nil
	})
	t.Cleanup(s.Close)
	dir, _ := writeFiles(t, s)
	g := &target{s, dir, `{"aps":{"alert":"Grüße"}}`, "authorization: bearer " + providerToken(t, s.Certificates().AuthKey)}
	if err := os.WriteFile(g.file("payload"), []byte(g.payload), 0o600); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *target) file(name string) string { return filepath.Join(g.dir, name) }

func (g *target) url(token string) string { return "https://" + g.HTTP2Addr + "/3/device/" + token }

// providerToken signs a token with the key of apnstest.
func providerToken(t *testing.T, p8 []byte) string {
	t.Helper()
	block, _ := pem.Decode(p8)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	base64 := base64.RawURLEncoding.EncodeToString
	signed := base64(fmt.Appendf(nil, `{"alg":"ES256","kid":%q}`, apnstest.KeyID)) + "." +
		base64(fmt.Appendf(nil, `{"iss":%q,"iat":%d}`, apnstest.TeamID, time.Now().Unix()))
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key.(*ecdsa.PrivateKey), sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

// output runs a program, and returns its standard output.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v, standard output %.2000s, standard error %s", filepath.Base(name), err, out, &errs)
	}
	return string(out)
}

// checkRecords checks that the server accepted the messages to the tokens of accepted, rejected
// those to the tokens of rejected, and received no others. All must have the payload and the
// topic.
func (g *target) checkRecords(t *testing.T, accepted, rejected []string) {
	t.Helper()
	var got, want []string
	for _, r := range g.Records() {
		m := r.Message
		got = append(got, fmt.Sprint(m.Token, " ", r.Err))
		if string(m.Payload) != g.payload || m.Topic != apnstest.BundleID {
			t.Errorf("got topic %q and payload %q, want %q and %q", m.Topic, m.Payload, apnstest.BundleID, g.payload)
		}
	}
	for _, token := range accepted {
		want = append(want, token+" <nil>")
	}
	for _, token := range rejected {
		want = append(want, token+" "+string(apns.ReasonBadDeviceToken))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the server has %d messages: %.300q\nwant %d: %.300q", len(got), got, len(want), want)
	}
}

const uuid = `[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}`

// credentials returns the options with which curl and nghttp authenticate.
func (g *target) credentials(kind string) []string {
	if kind == "token" {
		return []string{"-H", g.bearer}
	}
	return []string{"--cert", g.file("cert.pem"), "--key", g.file("key.pem")}
}

// curl pushes to the server of apnstest over one connection: one message at a time, and then
// many.
func TestCurl(t *testing.T) {
	curl := findProgram(t, "curl")
	for _, kind := range []string{"certificate", "token"} {
		t.Run(kind, func(t *testing.T) {
			g := newTarget(t)
			// push returns, for each push, a line with the body of the answer if it has one,
			// and a line with its status, the number of new connections, the HTTP version
			// and the apns-id.
			push := func(args ...string) []string {
				t.Helper()
				args = append(args, "-sS", "--http2", "--cacert", g.file("ca.pem"), "-H", "apns-topic: "+apnstest.BundleID, "-d", g.payload,
					"-w", `\n%{http_code} %{num_connects} %{http_version} %header{apns-id}\n`)
				return strings.Fields(strings.ReplaceAll(output(t, curl, append(args, g.credentials(kind)...)...), " ", ","))
			}
			good, bad := deviceToken("00"), deviceToken("bad0")
			const id = "123e4567-e89b-12d3-a456-4266554400a0"
			got := push(g.url(good), g.url(bad), g.url(good), "-H", "apns-id: "+id)
			want := []string{"200,1,2," + id, `{"reason":"BadDeviceToken"}`, "400,0,2," + id, "200,0,2," + id}
			if !slices.Equal(got, want) {
				t.Errorf("curl said %q, want %q", got, want)
			}

			accepted := []string{good, good}
			for i := range 1000 {
				accepted = append(accepted, fmt.Sprintf("%04d%s", i, good))
			}
			got = push("-Z", "--no-progress-meter", g.url("[0000-0999]"+good))
			slices.Sort(got)
			got = slices.Compact(got) // the apns-ids are all different
			line := regexp.MustCompile(`^200,[01],2,` + uuid + `$`)
			connections := 0
			for _, s := range got {
				if !line.MatchString(s) {
					t.Fatalf("curl said %q, want something as %v", s, line)
				}
				connections += int(s[len("200,")] - '0')
			}
			// With a provider token curl may reach the initial limit of one stream, and then
			// opens more connections.
			if len(got) != 1000 || connections != 1 && kind == "certificate" {
				t.Errorf("%d different answers over %d connections, want 1000 over 1", len(got), connections)
			}
			g.checkRecords(t, accepted, []string{bad})
		})
	}
}

// nghttp pushes to the server of apnstest with rarely used features of HTTP/2.
func TestNghttp(t *testing.T) {
	nghttp := findProgram(t, "nghttp")
	for _, test := range []struct {
		name, kind string
		options    []string
	}{
		{"certificate", "certificate", nil},
		{"token", "token", nil},
		{"trailers", "certificate", []string{"--trailer", "foo: bar"}},
		{"padding", "certificate", []string{"-b", "200"}},
		{"no content-length", "certificate", []string{"--no-content-length"}},
		{"expect continue", "certificate", []string{"--expect-continue"}},
		{"no table for the answers", "certificate", []string{"-c", "0"}},
		{"no table for the requests", "certificate", []string{"--encoder-header-table-size", "0"}},
		{"tiny windows", "certificate", []string{"-w", "4", "-W", "16"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newTarget(t)
			good, bad := deviceToken("00"), deviceToken("bad0")
			args := append(g.credentials(test.kind), "-v", "-n", "-y", "-m", "20", "-d", g.file("payload"), "-H", "apns-topic: "+apnstest.BundleID)
			out := output(t, nghttp, append(append(args, test.options...), g.url(good), g.url(bad))...)
			got := make(map[string]int)
			for _, field := range regexp.MustCompile(`recv \(stream_id=\d+\) (:status: .*|apns-id: `+uuid+`)`).FindAllStringSubmatch(out, -1) {
				got[field[1]]++
			}
			if got[":status: 200"] != 20 || got[":status: 400"] != 20 || len(got) != 2+40 { // two statuses, and 40 different IDs
				t.Errorf("nghttp received %v, want 20 times the status 200, 20 times 400, and 40 IDs; it ended with\n%s", got, out[max(0, len(out)-1000):])
			}
			g.checkRecords(t, slices.Repeat([]string{good}, 20), slices.Repeat([]string{bad}, 20))
		})
	}
}

// h2load pushes thousands of messages to the server of apnstest.
func TestH2load(t *testing.T) {
	h2load := findProgram(t, "h2load")
	const messages = 5000
	for _, test := range []struct{ clients, streams string }{{"1", "1"}, {"1", "100"}, {"4", "1"}, {"4", "100"}, {"1", "2000"}} {
		t.Run(fmt.Sprintf("%s clients, %s streams", test.clients, test.streams), func(t *testing.T) {
			g := newTarget(t)
			token := deviceToken("00")
			out := output(t, h2load, "-n", strconv.Itoa(messages), "-c", test.clients, "-m", test.streams, "-d", g.file("payload"),
				"-H", "apns-topic: "+apnstest.BundleID, "-H", g.bearer, g.url(token))
			for _, want := range []string{
				fmt.Sprintf("requests: %d total, %[1]d started, %[1]d done, %[1]d succeeded, 0 failed, 0 errored, 0 timeout", messages),
				fmt.Sprintf("status codes: %d 2xx, 0 3xx, 0 4xx, 0 5xx", messages),
			} {
				if !strings.Contains(out, want) {
					t.Errorf("h2load said %s\nwant %q", out, want)
				}
			}
			g.checkRecords(t, slices.Repeat([]string{token}, messages), nil)
		})
	}
}
