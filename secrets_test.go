package apns_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/internal/h2"
	"example.com/apns/internal/plain"
)

// No error and no log line shows a key, a provider token, a proxy's password, a device token
// or a payload. TestErrorsMatchOneClass checks that for each situation that a message comes
// to, and the tests of keys and certificates for those. Here are the peers that repeat what
// they are sent.

// payloadMark is a text in a payload.
const payloadMark = "Xq7Zk9WvT3Rb"

// A logBuffer keeps log lines. Any number of goroutines may use it.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// logTo makes a Config log everything to a buffer.
func logTo(config *apns.Config) *logBuffer {
	b := new(logBuffer)
	config.Logger = slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return b
}

// wantNoSecret checks that a text shows neither the message's token and payload nor another
// secret, in upper or lower case.
func wantNoSecret(t *testing.T, text string, m *apns.Message, secrets ...string) {
	t.Helper()
	secrets = append(secrets, m.Token)
	if bytes.Contains(m.Payload, []byte(payloadMark)) {
		secrets = append(secrets, payloadMark)
	}
	text = strings.ToLower(text)
	for _, secret := range secrets {
		secret = strings.ToLower(secret)
		for i := range len(secret) - 7 {
			if strings.Contains(text, secret[i:i+8]) {
				t.Errorf("got %q, which shows %q of a secret", text, secret[i:i+8])
				return
			}
		}
	}
}

func markedMessage() *apns.Message {
	return &apns.Message{
		ID:       7,
		Token:    "5ec4e7000123456789abcdef5ec4e7000123456789abcdef5ec4e7000123456789",
		Payload:  []byte(`{"aps":{"alert":"` + payloadMark + `"}}`),
		PushType: apns.PushTypeAlert,
	}
}

// Servers and proxies in between answer with an error page that repeats the request.
func TestSecretsOfRequestRepeated(t *testing.T) {
	var bearer string
	var answer func(w http.ResponseWriter, r *http.Request, body string)
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		bearer = strings.TrimPrefix(r.Header.Get("Authorization"), "bearer ")
		answer(w, r, string(body))
	}))
	web.EnableHTTP2 = true
	web.StartTLS()
	defer web.Close()
	config := func(t *testing.T) *apns.Config {
		c := inMemory(t, nil).TokenConfig()
		c.TLS = web.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		c.TLS.NextProtos = nil
		c.DialContext = nil
		return c
	}
	pages := map[string]func(r *http.Request, body string) string{
		"path":                     func(r *http.Request, body string) string { return "Cannot " + r.Method + " " + r.URL.Path },
		"path in upper case":       func(r *http.Request, body string) string { return strings.ToUpper(r.URL.Path) },
		"path, cut off":            func(r *http.Request, body string) string { return strings.Repeat(" ", 75) + r.URL.Path },
		"payload":                  func(r *http.Request, body string) string { return "Invalid: " + body },
		"payload, quoted":          func(r *http.Request, body string) string { return fmt.Sprintf("Invalid: %q", body) },
		"payload, cut off":         func(r *http.Request, body string) string { return strings.Repeat(" ", 80) + body },
		"provider token":           func(r *http.Request, body string) string { return r.Header.Get("Authorization") },
		"provider token's claims":  func(r *http.Request, body string) string { return strings.Split(r.Header.Get("Authorization"), ".")[1] },
		"a malformed field":        func(r *http.Request, body string) string { return r.URL.Path },
		"another error's JSON":     func(r *http.Request, body string) string { return `{"error":"` + r.URL.Path + `"}` },
		"all, on lines":            func(r *http.Request, body string) string { return r.URL.Path + "\n" + body },
		"nothing but the token":    func(r *http.Request, body string) string { return r.URL.Path[len("/3/device/"):] },
		"a part of the token only": func(r *http.Request, body string) string { return r.URL.Path[20:40] },
	}
	for name, page := range pages {
		for _, code := range []int{302, 404, 408, 500, 502, 503} {
			t.Run(fmt.Sprint(name, ", ", code), func(t *testing.T) {
				answer = func(w http.ResponseWriter, r *http.Request, body string) {
					text := page(r, body)
					if name == "a malformed field" {
						w.Header().Set("Apns-Request", " "+text)
					}
					w.WriteHeader(code)
					io.WriteString(w, text)
				}
				c := config(t)
				log := logTo(c)
				m := markedMessage()
				var attempts []string
				client := http2Client(t, c, func(c *apns.Client) {
					c.Addr, c.Attempts, c.InDoubt = web.Listener.Addr().String(), 2, apns.InDoubtResend
					c.OnAttempt = func(_ context.Context, a apns.Attempt) { attempts = append(attempts, fmt.Sprintf("%+v %v", a, a.Err)) }
				})
				_, err := client.Push(t.Context(), m)
				connErr := dial(t, web.Listener.Addr().String(), c).WritePushMsg(t.Context(), m)
				if err == nil || connErr == nil || bearer == "" {
					t.Fatalf("got %v and %v, provider token %q; want errors and a token", err, connErr, bearer)
				}
				want := "and the body begins with "
				switch {
				case name == "a malformed field":
					want = "the answer breaks the rules of HTTP/2: apns-request has the value "
				case code == 404:
					want = "(HTTP status 404)"
				}
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q in it", err, want)
				}
				if wantAttempts := map[bool]int{true: 1, false: 2}[code == 404 && name != "a malformed field"]; len(attempts) != wantAttempts {
					t.Errorf("%d attempts, want %d", len(attempts), wantAttempts)
				}
				for _, text := range append(attempts, err.Error(), connErr.Error(), log.String()) {
					wantNoSecret(t, text, m, bearer)
				}
			})
		}
	}
}

// A GOAWAY is about no message in particular.
func TestSecretsInGoAway(t *testing.T) {
	m := markedMessage()
	for _, debug := range []string{"POST /3/device/" + m.Token, m.Token, strings.ToUpper(m.Token), "bearer eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJERUYxMjNHSElKIn0.c2lnbmF0dXJl"} {
		synctest.Test(t, func(t *testing.T) {
			config := saying(h2.AppendGoAway(nil, 0, h2.CodeEnhanceYourCalm, []byte(debug)), nil)(t)
			log := logTo(config)
			c := http2Client(t, config, func(c *apns.Client) { c.Attempts, c.Timeout = 1, 5*time.Second })
			_, err := c.Push(t.Context(), m)
			for _, text := range []string{fmt.Sprint(err), log.String()} {
				wantNoSecret(t, text, m, "eyJhbGciOiJFUzI1NiJ9")
			}
			if !strings.Contains(log.String(), "GOAWAY") || err == nil {
				t.Errorf("got %v and the log %s, want a GOAWAY", err, log)
			}
		})
	}
}

// An echo is not a gateway. What it says is the message.
func TestSecretsInEcho(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		var serving sync.WaitGroup
		defer serving.Wait()
		serving.Go(func() {
			defer server.Close()
			buf := make([]byte, 4096)
			n, _ := server.Read(buf)
			server.Write(buf[:n])
			io.Copy(io.Discard, server)
		})
		config := &apns.Config{DialContext: func(context.Context, string, string) (net.Conn, error) {
			return &plain.Conn{Conn: client}, nil
		}}
		log := logTo(config)
		c := dial(t, "gateway.push.apple.com:2195", config)
		m := markedMessage()
		m.Token = strings.Repeat("41", 32) // which is text, too
		if err := c.WritePushMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		err := c.CheckForError()
		if err == nil || !strings.Contains(err.Error(), `the peer is no gateway of the binary protocol: expected an error packet (command 8), got "\x01"`) {
			t.Errorf("got %v, want that the peer is no gateway", err)
		}
		wantNoSecret(t, fmt.Sprint(err, log), m, "AAAAAAAA")
		c.Close()
	})
}

// A proxy that answers with what it was sent, and the URL of a proxy that is malformed.
func TestSecretsOfProxy(t *testing.T) {
	const user, password = "uXq7Zk9WvT", "pRb3Mn8Jc"
	basic := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	for name, answer := range map[string]string{
		"body":     "HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\nDenied: Basic " + basic,
		"password": "HTTP/1.1 407 Who\r\nConnection: close\r\n\r\n" + user + ":" + password + " is wrong",
		"status":   "HTTP/1.1 403 Not " + password + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				config := &apns.Config{}
				config.DialContext = apns.ProxyDialContext(http.ProxyURL(&url.URL{Scheme: "http", Host: "proxy:3128", User: url.UserPassword(user, password)}), &apns.Config{
					DialContext: func(context.Context, string, string) (net.Conn, error) {
						client, proxy := net.Pipe()
						go func() {
							defer proxy.Close()
							r := bufio.NewReader(proxy)
							for line := ""; line != "\r\n"; {
								var err error
								if line, err = r.ReadString('\n'); err != nil {
									return
								}
							}
							io.WriteString(proxy, answer)
						}()
						return client, nil
					},
				})
				log := logTo(config)
				_, err := apns.Dial(t.Context(), apns.Production, config)
				_, pushErr := http2Client(t, config, func(c *apns.Client) { c.Timeout = time.Second }).Push(t.Context(), markedMessage())
				if err == nil || pushErr == nil || !strings.Contains(err.Error(), "proxy http://proxy:3128: answered ") {
					t.Errorf("got %v and %v, want errors of the proxy", err, pushErr)
				}
				wantNoSecret(t, fmt.Sprint(err, pushErr, log), markedMessage(), user, password, basic)
			})
		})
	}
	for _, text := range []string{
		"http://" + user + ":" + password + "@proxy:port",
		"http://" + user + ":" + password + "%zz@proxy:3128",
		"http://" + user + ":" + password + "\x7f@proxy:3128",
		":" + password,
	} {
		config := &apns.Config{DialContext: apns.ProxyDialContext(func(*http.Request) (*url.URL, error) { return url.Parse(text) }, nil)}
		_, err := apns.Dial(t.Context(), apns.Production, config)
		if err == nil || !strings.Contains(err.Error(), "choosing a proxy: the proxy's URL cannot be parsed") {
			t.Errorf("%q: got %v, want an error of the URL", text, err)
		}
		wantNoSecret(t, fmt.Sprint(err), markedMessage(), user, password)
	}
	boom := errors.New("boom")
	config := &apns.Config{DialContext: apns.ProxyDialContext(func(*http.Request) (*url.URL, error) { return nil, boom }, nil)}
	if _, err := apns.Dial(t.Context(), apns.Production, config); !errors.Is(err, boom) {
		t.Errorf("got %v, want the error of the function", err)
	}
}

// What is printed or logged as a whole shows no secret. TestAuthKeyLeaksNothing has the key
// itself.
func TestSecretsOfValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, nil)
		config := server.TokenConfig()
		m := markedMessage()
		m.Topic = apnstest.BundleID
		client, conn := http2Client(t, config), dial(t, apns.Production, config)
		if _, err := client.Push(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if err := conn.WritePushMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		key := strings.Split(string(server.Certificates().AuthKey), "\n")[1]
		values := map[string]any{
			"Config": *config, "*Config": config, "*Client": client, "*Conn": conn, "Stats": client.Stats(),
			"Result": apns.Result{Message: m}, "CertificateInfo": apns.InspectCertificate(server.Config().TLS.Certificates[0].Leaf),
		}
		for name, v := range values {
			for _, verb := range []string{"%v", "%+v", "%#v"} {
				text := fmt.Sprintf(verb, v)
				wantNoSecret(t, text, m, key)
				if strings.Contains(text, "eyJ") {
					t.Errorf("%s of %s: got %q, which has a provider token", verb, name, text)
				}
			}
			var log bytes.Buffer
			slog.New(slog.NewTextHandler(&log, nil)).Info(name, "value", v)
			if name != "Result" { // its Message is what the user asks for
				slog.New(slog.NewJSONHandler(&log, nil)).Info(name, "value", v)
				b, _ := json.Marshal(v)
				log.Write(b)
			}
			wantNoSecret(t, log.String(), m, key)
		}
	})
}
