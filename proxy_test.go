package apns_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// A connectProxy is a proxy that knows the one method CONNECT.
type connectProxy struct {
	*httptest.Server
	next dialer // where the connections go

	mu       sync.Mutex
	requests []string
	conns    []net.Conn
	copying  sync.WaitGroup
}

func startProxy(t *testing.T, scheme string, next dialer) *connectProxy {
	t.Helper()
	p := &connectProxy{next: next}
	p.Server = httptest.NewUnstartedServer(p)
	p.Server.Config.ErrorLog = log.New(io.Discard, "", 0)
	if scheme == "https" {
		p.EnableHTTP2 = true // it would take HTTP/2, if that were offered
		p.StartTLS()
	} else {
		p.Start()
	}
	t.Cleanup(func() {
		p.Close()
		p.mu.Lock()
		for _, c := range p.conns {
			c.Close()
		}
		p.mu.Unlock()
		p.copying.Wait()
	})
	return p
}

func (p *connectProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	request := fmt.Sprintf("%s %s %s, Host %s", r.Method, r.RequestURI, r.Proto, r.Host)
	if auth := r.Header.Get("Proxy-Authorization"); auth != "" {
		request += ", " + auth
	}
	if r.TLS != nil {
		request += fmt.Sprintf(", TLS to %q, ALPN %q", r.TLS.ServerName, r.TLS.NegotiatedProtocol)
	}
	p.mu.Lock()
	p.requests = append(p.requests, request)
	p.mu.Unlock()
	server, err := p.next(r.Context(), "tcp", r.RequestURI)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	client, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	p.mu.Lock()
	p.conns = append(p.conns, client, server)
	p.mu.Unlock()
	io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n")
	for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
		p.copying.Go(func() {
			io.Copy(pair[0], pair[1])
			pair[0].Close()
			pair[1].Close()
		})
	}
}

// seen returns the requests so far.
func (p *connectProxy) seen() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.requests)
}

// url returns the proxy's URL with the user information, which may be empty.
func (p *connectProxy) url(t *testing.T, user string) *url.URL {
	t.Helper()
	scheme, host, _ := strings.Cut(p.URL, "://")
	return parseURL(t, scheme+"://"+user+host)
}

// config returns the configuration that reaches the proxy.
func (p *connectProxy) config() *apns.Config {
	if p.Certificate() == nil {
		return nil
	}
	roots := x509.NewCertPool()
	roots.AddCert(p.Certificate())
	return &apns.Config{TLS: &tls.Config{RootCAs: roots, NextProtos: []string{"h2", "http/1.1"}}}
}

func parseURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// scripted returns a DialContext to a peer in memory that reads a request, up to
// its empty line, and then does what serve does. Its goroutine ends, at the
// latest, with the connection.
func scripted(serve func(c net.Conn, request string)) dialer {
	return func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			var request []byte
			b := make([]byte, 1)
			for !bytes.HasSuffix(request, []byte("\r\n\r\n")) {
				if _, err := io.ReadFull(server, b); err != nil {
					return
				}
				request = append(request, b[0])
			}
			serve(server, string(request))
		}()
		return client, nil
	}
}

// answering is a proxy that gives the answer and closes the connection.
func answering(answer string) dialer {
	return scripted(func(c net.Conn, _ string) { io.WriteString(c, answer) })
}

// throughProxy returns the DialContext for the proxy with the URL, which itself
// is reached by dial.
func throughProxy(t *testing.T, proxy string, dial dialer) dialer {
	t.Helper()
	return apns.ProxyDialContext(http.ProxyURL(parseURL(t, proxy)), &apns.Config{DialContext: dial})
}

const gateway = "gateway.push.apple.com:2195"

// Both services are reached through a proxy.
func TestProxy(t *testing.T) {
	basic := func(s string) string {
		return ", Basic " + base64.StdEncoding.EncodeToString([]byte(s))
	}
	for _, scheme := range []string{"http", "https"} {
		for user, auth := range map[string]string{
			"":                   "",
			"jo@":                basic("jo:"),
			"jo:@":               basic("jo:"),
			"jo:s3cret@":         basic("jo:s3cret"),
			"j%C3%B6:a%3Ab%40c@": basic("jö:a:b@c"),
			":s3cret@":           basic(":s3cret"),
		} {
			t.Run(scheme+" "+user, func(t *testing.T) {
				s := apnstest.NewServer(nil)
				defer s.Close()
				want := deadDevices(3)
				s.AddFeedback(want...)
				p := startProxy(t, scheme, s.Config().DialContext)
				config := s.Config()
				config.DialContext = apns.ProxyDialContext(http.ProxyURL(p.url(t, user)), p.config())

				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				c, err := apns.Dial(ctx, gateway, config)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				cancel() // is over, as is its deadline
				for id := range uint32(100) {
					if err := c.WritePushMsg(t.Context(), message(id)); err != nil {
						t.Fatal(err)
					}
				}
				if err := c.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				if n := len(s.Messages(apnstest.Accepted)); n != 100 {
					t.Errorf("the server accepted %d messages, want 100", n)
				}

				const feedback = "feedback.push.apple.com:2196"
				var got []apns.Feedback
				for f, err := range dial(t, feedback, config).Feedback(t.Context()) {
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, f)
				}
				if !slices.Equal(got, want) {
					t.Errorf("got %v, want %v", got, want)
				}

				var requests []string
				for _, addr := range []string{gateway, feedback} {
					r := fmt.Sprintf("CONNECT %s HTTP/1.1, Host %s%s", addr, addr, auth)
					if scheme == "https" {
						r += `, TLS to "", ALPN ""` // no name is sent for an IP address
					}
					requests = append(requests, r)
				}
				if seen := p.seen(); !slices.Equal(seen, requests) {
					t.Errorf("the proxy got %q\nwant %q", seen, requests)
				}
			})
		}
	}
}

// A rejection comes through a proxy as it does without.
func TestProxyRejection(t *testing.T) {
	s := apnstest.NewServer(rejecting(3, apns.StatusInvalidToken))
	defer s.Close()
	for _, scheme := range []string{"http", "https"} {
		p := startProxy(t, scheme, s.Config().DialContext)
		config := s.Config()
		config.DialContext = apns.ProxyDialContext(http.ProxyURL(p.url(t, "")), p.config())
		c := dial(t, gateway, config)
		for id := range uint32(5) {
			if err := c.WritePushMsg(t.Context(), message(id)); err != nil {
				break // CheckForError knows why
			}
		}
		wantPushError(t, c.Shutdown(t.Context()), 3, apns.StatusInvalidToken)
	}
}

// The proxy is dialed at its scheme's port, unless the URL has one, and its name
// is the one that its certificate must have, unless the Config has one.
func TestProxyAddress(t *testing.T) {
	s := apnstest.NewServer(nil) // for its certificates
	defer s.Close()
	certs := s.Certificates()
	pair, err := tls.X509KeyPair(certs.ServerCert, certs.ServerKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		url, name, addr, serverName string
	}{
		{"http://proxy.example.com", "", "proxy.example.com:80", ""},
		{"http://proxy.example.com:3128/ignored", "", "proxy.example.com:3128", ""},
		{"http://[::1]", "", "[::1]:80", ""},
		{"https://gateway.example.com", "", "gateway.example.com:443", "gateway.example.com"},
		{"https://gateway.example.com:3129", "", "gateway.example.com:3129", "gateway.example.com"},
		{"https://10.0.0.1", "gateway.example.com", "10.0.0.1:443", "gateway.example.com"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var addr string
			var hello tls.ClientHelloInfo
			config := &apns.Config{
				TLS: s.Config().TLS,
				DialContext: func(ctx context.Context, network, a string) (net.Conn, error) {
					addr = network + " " + a
					client, server := net.Pipe()
					go func() {
						defer server.Close()
						if strings.HasPrefix(test.url, "https:") {
							server = tls.Server(server, &tls.Config{
								Certificates: []tls.Certificate{pair},
								GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
									hello = *h
									return nil, nil
								},
							})
						}
						server.Read(make([]byte, 4096))
						io.WriteString(server, "HTTP/1.1 200 OK\r\n\r\n")
					}()
					return client, nil
				},
			}
			config.TLS.InsecureSkipVerify = true // it is about the name alone
			config.TLS.ServerName = test.name
			config.TLS.NextProtos = []string{"h2"}
			c, err := apns.ProxyDialContext(http.ProxyURL(parseURL(t, test.url)), config)(t.Context(), "tcp4", gateway)
			if err != nil {
				t.Errorf("%s: %v", test.url, err)
				return
			}
			c.Close()
			synctest.Wait()
			if addr != "tcp4 "+test.addr || hello.ServerName != test.serverName || len(hello.SupportedProtos) != 0 {
				t.Errorf("%s: dialed %s as %q with the protocols %q; want tcp4 %s as %q with none",
					test.url, addr, hello.ServerName, hello.SupportedProtos, test.addr, test.serverName)
			}
			if config.TLS.ServerName != test.name || len(config.TLS.NextProtos) != 1 {
				t.Errorf("%s: the Config was modified", test.url)
			}
		})
	}
}

// Errors say which proxy, without its password, and what it said.
func TestProxyErrors(t *testing.T) {
	const secret = "http://jo:s3cret@proxy:3128"
	const long = "HTTP/1.1 200 OK\r\nX: "
	page := func(status, header, body string) string {
		return fmt.Sprintf("HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s", status, header, len(body), body)
	}
	for name, test := range map[string]struct{ url, answer, want string }{
		"407":                     {"http://proxy:3128", page("407 Proxy Authentication Required", "Proxy-Authenticate: Basic realm=\"x\"\r\n", ""), `proxy http://proxy:3128: answered "407 Proxy Authentication Required": it wants credentials, and its URL has none`},
		"407 for the credentials": {secret, page("407 No", "Proxy-Authenticate: NTLM\r\nProxy-Authenticate: basic\r\n", "Wrong password."), `proxy http://proxy:3128: answered "407 No" and "Wrong password.": it refused the credentials of its URL`},
		"407 for other ones":      {secret, page("407 No", "Proxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM abc\r\n", ""), `proxy http://proxy:3128: answered "407 No": it refused the credentials of its URL; what it wants is "Negotiate, NTLM", and there is only basic authentication here`},
		"403":                     {secret, page("403 Forbidden", "", "\r\n\r\n only port 443 \r\nis allowed\r\n"), `proxy http://proxy:3128: answered "403 Forbidden" and "only port 443"`},
		"403, a page":             {secret, page("403 Forbidden", "", "<html><body>No."), `proxy http://proxy:3128: answered "403 Forbidden"`},
		"403, at length":          {secret, page("403 Forbidden", "", strings.Repeat("no", 101)), `proxy http://proxy:3128: answered "403 Forbidden"`},
		"403, endlessly":          {secret, page("403 Forbidden", "", strings.Repeat("no", 1e5)), `proxy http://proxy:3128: answered "403 Forbidden"`},
		"403, cut":                {secret, "HTTP/1.1 403 Forbidden\r\nContent-Length: 1000\r\n\r\nnot that port", `proxy http://proxy:3128: answered "403 Forbidden" and "not that port"`},
		"403, to the end":         {secret, "HTTP/1.1 403 Forbidden\r\n\r\nnot that port", `proxy http://proxy:3128: answered "403 Forbidden" and "not that port"`},
		"502, in chunks":          {secret, "HTTP/1.1 502 Bad Gateway\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nno \r\n4\r\nhost\r\n0\r\n\r\n", `proxy http://proxy:3128: answered "502 Bad Gateway" and "no host"`},
		"control characters":      {secret, page("502 \x1b[2J", "", "\x1b[2J"), `proxy http://proxy:3128: answered "502 \x1b[2J" and "\x1b[2J"`},
		"302":                     {secret, page("302 Found", "Location: http://login/\r\n", ""), `proxy http://proxy:3128: answered "302 Found"`},
		"100":                     {secret, "HTTP/1.1 100 Continue\r\n\r\n", `proxy http://proxy:3128: answered "100 Continue"`},
		"no phrase":               {secret, "HTTP/1.1 500\r\n\r\n", `proxy http://proxy:3128: answered "500"`},
		"an endless phrase":       {secret, "HTTP/1.1 500 " + strings.Repeat("x", 1000) + "\r\n\r\n", `proxy http://proxy:3128: answered "500 ` + strings.Repeat("x", 60) + `"`},
		"another protocol":        {secret, "220 mail.example.com ESMTP\r\n", `proxy http://proxy:3128: it does not speak HTTP, its first line is "220 mail.example.com ESMTP\r\n"`},
		"a TLS alert":             {secret, "\x15\x03\x01\x00\x02\x02\x46", `proxy http://proxy:3128: its answer breaks off after 7 bytes, which begin with "\x15\x03\x01\x00\x02\x02F": unexpected EOF`},
		"a bad status":            {secret, "HTTP/1.1 2OO OK\r\n\r\n", `proxy http://proxy:3128: its answer is not HTTP: "malformed HTTP status code \"2OO\""`},
		"a bad header":            {secret, "HTTP/1.1 200 OK\r\nnothing\x1b\r\n\r\n", `proxy http://proxy:3128: its answer is not HTTP: "malformed MIME header: missing colon: \"nothing\\x1b\""`},
		"a long header":           {secret, long + strings.Repeat("x", 16<<10-len(long)-3) + "\r\n\r\n", `proxy http://proxy:3128: the header of its answer is longer than 16384 bytes`},
		"an endless header":       {secret, strings.Repeat("x", 1e5), `proxy http://proxy:3128: the header of its answer is longer than 16384 bytes`},
		"no answer":               {secret, "", "proxy http://proxy:3128: no answer: unexpected EOF"},
		"not TLS":                 {"https://jo:s3cret@proxy", "HTTP/1.1 400 Bad Request\r\n\r\n", `proxy https://proxy: TLS handshake: tls: first record does not look like a TLS handshake`},
		"another scheme":          {"socks5://jo:s3cret@proxy:1080", "", `proxy socks5://proxy:1080: the scheme is "socks5", expected http or https: for another kind of proxy, set a DialContext of your own`},
		"no scheme":               {"//proxy:1080", "", `proxy //proxy:1080: the scheme is "", expected http or https: for another kind of proxy, set a DialContext of your own`},
		"no host":                 {"http:///proxy", "", `proxy http:: the URL has no host`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dial := answering(test.answer)
				if strings.HasPrefix(test.url, "https:") {
					dial = func(context.Context, string, string) (net.Conn, error) {
						client, server := net.Pipe()
						go func() {
							defer server.Close()
							server.Read(make([]byte, 4096))
							io.WriteString(server, test.answer)
						}()
						return client, nil
					}
				}
				dial = throughProxy(t, test.url, dial)
				c, err := dial(t.Context(), "tcp", gateway)
				if c != nil || fmt.Sprint(err) != test.want {
					t.Errorf("got  %v, %v\nwant %s", c, err, test.want)
				}
				_, err = apns.Dial(t.Context(), gateway, &apns.Config{DialContext: dial})
				if want := "apns: connecting to " + gateway + ": " + test.want; fmt.Sprint(err) != want {
					t.Errorf("Dial: got  %v\nwant %s", err, want)
				}
			})
		})
	}
}

// What others return is in the error that comes of it.
func TestProxyErrorsOfOthers(t *testing.T) {
	boom := errors.New("boom")
	broken := func(context.Context, string, string) (net.Conn, error) { return nil, boom }
	failing := func(*http.Request) (*url.URL, error) { return nil, boom }
	for want, dial := range map[string]dialer{
		"choosing a proxy: boom":  apns.ProxyDialContext(failing, nil),
		"proxy http://p:80: boom": throughProxy(t, "http://jo:s3cret@p:80", broken),
		"boom":                    apns.ProxyDialContext(nil, &apns.Config{DialContext: broken}),
	} {
		c, err := dial(t.Context(), "tcp", gateway)
		if c != nil || fmt.Sprint(err) != want || !errors.Is(err, boom) {
			t.Errorf("got %v, %v; want %s", c, err, want)
		}
	}

	// The error of a proxy that cannot connect is the proxy's, not the network's.
	p := startProxy(t, "http", broken)
	_, err := apns.ProxyDialContext(http.ProxyURL(p.url(t, "jo:s3cret@")), nil)(t.Context(), "tcp", gateway)
	if want := "proxy " + p.URL + `: answered "502 Bad Gateway" and "boom"`; fmt.Sprint(err) != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	// A proxy whose certificate is of no known authority.
	p = startProxy(t, "https", broken)
	_, err = apns.ProxyDialContext(http.ProxyURL(p.url(t, "")), nil)(t.Context(), "tcp", gateway)
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok || !strings.HasPrefix(err.Error(), "proxy "+p.URL+": TLS handshake: ") {
		t.Errorf("got %v, want that the certificate of %s is not trusted", err, p.URL)
	}
}

// No address can make the request anything but a CONNECT of that address.
func TestProxyRequest(t *testing.T) {
	for addr, want := range map[string]string{
		gateway:                        "CONNECT gateway.push.apple.com:2195 HTTP/1.1\r\nHost: gateway.push.apple.com:2195\r\nUser-Agent: Go-http-client/1.1\r\n\r\n",
		"[::1]:2195":                   "CONNECT [::1]:2195 HTTP/1.1\r\nHost: [::1]:2195\r\nUser-Agent: Go-http-client/1.1\r\n\r\n",
		"bücher.example:2195":          "CONNECT xn--bcher-kva.example:2195 HTTP/1.1\r\nHost: xn--bcher-kva.example:2195\r\nUser-Agent: Go-http-client/1.1\r\n\r\n",
		"a b:1":                        "",
		"x:1 HTTP/1.1\r\nHost: y\r\n:": "",
		"a/b:1":                        "",
	} {
		synctest.Test(t, func(t *testing.T) {
			got := ""
			c, err := throughProxy(t, "http://proxy", scripted(func(c net.Conn, request string) {
				got = request
				io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			}))(t.Context(), "tcp", addr)
			synctest.Wait()
			if err == nil {
				c.Close()
			}
			if got != want || (err == nil) != (want != "") {
				t.Errorf("%q: got %q, %v; want %q", addr, got, err, want)
			}
		})
	}
}

// The answer is cut at each byte. It is a success when it is whole, and what
// follows is the server's.
func TestProxyAnswerCut(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 200 Connection established\r\n\r\n",
		"HTTP/1.0 200\n\n",
		"HTTP/1.1 299 OK\r\nContent-Length: 5\r\nX: y\r\n z\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
	} {
		for n := range len(answer) + 1 {
			synctest.Test(t, func(t *testing.T) {
				c, err := throughProxy(t, "http://proxy", answering(answer[:n]))(t.Context(), "tcp", gateway)
				switch {
				case n == len(answer):
					if err != nil {
						t.Errorf("%q: %v", answer, err)
						return
					}
					defer c.Close()
					if b, err := io.ReadAll(c); len(b) != 0 || err != nil {
						t.Errorf("%q: got %q, %v after it; want nothing", answer, b, err)
					}
				case c != nil || !errors.Is(err, io.ErrUnexpectedEOF) || !strings.HasPrefix(err.Error(), "proxy http://proxy: "):
					t.Errorf("%q: got %v, %v; want the proxy's name and io.ErrUnexpectedEOF", answer[:n], c, err)
				}
			})
		}
	}
}

// Bytes that the server sends at once, and that arrive together with the proxy's
// answer, are not lost, whatever the length of the answer.
func TestProxyEarlyBytes(t *testing.T) {
	const early = "HTTP/1.1 500 early\r\n\r\n"
	lengths := []int{0, 1, 16<<10 - 23}
	for n := 4096 - 30; n < 4096+10; n++ { // bufio.Reader's buffer
		lengths = append(lengths, n)
	}
	for _, n := range lengths {
		for _, header := range []string{"", "Content-Length: 3\r\n"} {
			answer := "HTTP/1.1 200 OK\r\nX:" + strings.Repeat("x", max(0, n-len(header))) + "\r\n" + header + "\r\n"
			synctest.Test(t, func(t *testing.T) {
				c, err := throughProxy(t, "http://proxy", answering(answer+early))(t.Context(), "tcp", gateway)
				if err != nil {
					t.Errorf("a header of %d bytes: %v", len(answer), err)
					return
				}
				defer c.Close()
				if b, err := io.ReadAll(c); string(b) != early || err != nil {
					t.Errorf("a header of %d bytes: got %q, %v after it; want %q", len(answer), b, err, early)
				}
			})
		}
	}
}

// Contexts end each of the things that a proxy can keep one waiting for. The
// connection is closed then.
func TestProxyContext(t *testing.T) {
	silent := scripted(func(c net.Conn, _ string) { io.Copy(io.Discard, c) })
	for name, test := range map[string]struct {
		url  string
		dial dialer
		want string
	}{
		"dial": {"http://proxy", func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, "proxy http://proxy: %v"},
		"handshake":  {"https://proxy", silent, "proxy https://proxy: TLS handshake: %v"},
		"no request": {"http://proxy", func(context.Context, string, string) (net.Conn, error) { c, _ := net.Pipe(); return c, nil }, `proxy http://proxy: asking it to connect to "gateway.push.apple.com:2195": %v`},
		"no answer":  {"http://proxy", silent, "proxy http://proxy: no answer: %v"},
		"half an answer": {"http://proxy", scripted(func(c net.Conn, _ string) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			io.Copy(io.Discard, c)
		}), `proxy http://proxy: its answer breaks off after 17 bytes, which begin with "HTTP/1.1 200 OK\r\n": %v`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var conn net.Conn
				dial := throughProxy(t, test.url, func(ctx context.Context, network, addr string) (_ net.Conn, err error) {
					conn, err = test.dial(ctx, network, addr)
					return conn, err
				})
				check := func(ctx context.Context, after time.Duration) {
					t.Helper()
					start := time.Now()
					c, err := dial(ctx, "tcp", gateway)
					want := fmt.Sprintf(test.want, ctx.Err())
					if c != nil || fmt.Sprint(err) != want || !errors.Is(err, ctx.Err()) || time.Since(start) != after {
						t.Errorf("got %v, %v after %v\nwant %s after %v", c, err, time.Since(start), want, after)
					}
					if conn != nil {
						if _, err := conn.Read(make([]byte, 1)); err != io.ErrClosedPipe {
							t.Errorf("the connection is open: Read returns %v", err)
						}
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				check(ctx, time.Minute)
				if c, err := dial(ctx, "tcp", gateway); c != nil || !errors.Is(err, ctx.Err()) {
					t.Errorf("got %v, %v from a context that has ended; want %v", c, err, ctx.Err())
				}
				ctx, cancel = context.WithCancel(t.Context())
				time.AfterFunc(time.Hour, cancel)
				check(ctx, time.Hour)
			})
		})
	}
}

// A cancelingConn calls cancel when so many bytes have been read.
type cancelingConn struct {
	net.Conn
	left   int
	cancel func()
}

func (c *cancelingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.left -= n; c.left == 0 {
		c.cancel()
	}
	return n, err
}

// A context that ends together with the answer has closed the connection.
func TestProxyContextEndsAtTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const answer = "HTTP/1.1 200 OK\r\n\r\n"
		ctx, cancel := context.WithCancel(t.Context())
		c, err := throughProxy(t, "http://proxy", func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := answering(answer)(ctx, network, addr)
			return &cancelingConn{c, len(answer), cancel}, err
		})(ctx, "tcp", gateway)
		if c != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, %v; want %v", c, err, context.Canceled)
		}
	})
}

// A proxy that refuses is not waited for to say why, even without a deadline.
func TestProxyBodyNeverComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, err := throughProxy(t, "http://proxy", scripted(func(c net.Conn, _ string) {
			io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\nno ")
			io.Copy(io.Discard, c)
		}))(t.Context(), "tcp", gateway)
		const want = `proxy http://proxy: answered "403 Forbidden" and "no"`
		if fmt.Sprint(err) != want || time.Since(start) != time.Second {
			t.Errorf("got %v after %v; want %s after a second", err, time.Since(start), want)
		}
	})
}

// The context of the dialing has no hold on the connection that came of it.
func TestProxyContextEndsLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c, err := throughProxy(t, "http://proxy", scripted(func(c net.Conn, _ string) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			time.Sleep(time.Hour)
			io.WriteString(c, "late")
		}))(ctx, "tcp", gateway)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if b, err := io.ReadAll(c); string(b) != "late" || err != nil {
			t.Errorf("got %q, %v; want %q", b, err, "late")
		}
	})
}

// To close a connection does not wait for a proxy that does not read, and ends
// the TLS with one that does.
func TestProxyOverTLSCloses(t *testing.T) {
	s := apnstest.NewServer(nil) // for its certificates
	defer s.Close()
	certs := s.Certificates()
	pair, err := tls.X509KeyPair(certs.ServerCert, certs.ServerKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, reads := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			client, server := net.Pipe()
			read := make(chan error, 1)
			go func() {
				defer server.Close()
				p := tls.Server(server, &tls.Config{Certificates: []tls.Certificate{pair}})
				p.Read(make([]byte, 4096))
				io.WriteString(p, "HTTP/1.1 200 OK\r\n\r\n")
				if !reads {
					time.Sleep(time.Hour)
				}
				_, err := p.Read(make([]byte, 1))
				read <- err
			}()
			config := &apns.Config{TLS: s.Config().TLS}
			config.TLS.InsecureSkipVerify = true
			config.TLS.Certificates = nil
			config.DialContext = func(context.Context, string, string) (net.Conn, error) { return client, nil }
			c, err := apns.ProxyDialContext(http.ProxyURL(parseURL(t, "https://gateway.example.com")), config)(t.Context(), "tcp", gateway)
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			c.Close()
			if d := time.Since(start); d > time.Second || reads && d > 0 {
				t.Errorf("reads %v: Close took %v, want at most a second", reads, d)
			}
			if err := <-read; reads && err != io.EOF {
				t.Errorf("the proxy's Read returns %v, want the io.EOF of a close_notify", err)
			}
		})
	}
}

// A context can end the reading of a record, without loss, through a proxy over
// TLS too.
func TestProxyFeedbackContext(t *testing.T) {
	hold := make(chan struct{})
	s := apnstest.NewUnstartedServer(nil)
	s.OnConnect = func(int, tlsState) error { <-hold; return nil }
	s.Start()
	defer s.Close()
	want := deadDevices(3)
	s.AddFeedback(want...)
	p := startProxy(t, "https", s.Config().DialContext)
	config := s.Config()
	config.DialContext = apns.ProxyDialContext(http.ProxyURL(p.url(t, "")), p.config())
	c := dial(t, "feedback.push.apple.com:2196", config)
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		_, err := c.ReadFeedbackMsg(ctx)
		wantErr(t, err, context.DeadlineExceeded)
		cancel()
	}
	close(hold)
	var got []apns.Feedback
	for f, err := range c.Feedback(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, f)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Without a proxy the connection is a direct one. The function is asked with the
// context and the address of each.
func TestProxyDirect(t *testing.T) {
	s := apnstest.NewServer(nil)
	defer s.Close()
	p := startProxy(t, "http", s.Config().DialContext)
	type key struct{}
	var asked []string
	byPort := func(r *http.Request) (*url.URL, error) {
		asked = append(asked, fmt.Sprintf("%s %v", r.URL, r.Context().Value(key{})))
		if r.URL.Port() == "2196" {
			return p.url(t, ""), nil
		}
		return nil, nil
	}
	config := s.Config()
	config.DialContext = apns.ProxyDialContext(byPort, &apns.Config{DialContext: config.DialContext})
	proxied := s.Config()
	proxied.DialContext = apns.ProxyDialContext(byPort, nil)
	ctx := context.WithValue(t.Context(), key{}, "of the caller")
	for addr, config := range map[string]*apns.Config{gateway: config, "feedback.push.apple.com:2196": proxied} {
		asked = nil
		c, err := apns.Dial(ctx, addr, config)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if want := []string{"https://" + addr + " of the caller"}; !slices.Equal(asked, want) {
			t.Errorf("asked %q, want %q", asked, want)
		}
	}
	if seen := p.seen(); len(seen) != 1 {
		t.Errorf("the proxy got %q, want one request", seen)
	}

	for name, proxy := range map[string]func(*http.Request) (*url.URL, error){
		"nil":          nil,
		"nil URL":      http.ProxyURL(nil),
		"environment":  http.ProxyFromEnvironment, // which leaves out loopback
		"nil function": new(http.Transport).Proxy,
	} {
		config := s.Config()
		config.DialContext = nil
		config.TLS.ServerName = "localhost"
		// The result can go where the argument came from.
		config.DialContext = apns.ProxyDialContext(proxy, config)
		c, err := apns.Dial(t.Context(), s.PushAddr, config)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := c.WritePushMsg(t.Context(), message(1)); err != nil {
			t.Error(err)
		}
		if err := c.Shutdown(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The environment is read once in a process, so this takes another.
func TestProxyFromEnvironment(t *testing.T) {
	if os.Getenv("APNS_TEST_PROXY") != "" {
		c, err := apns.ProxyDialContext(http.ProxyFromEnvironment, nil)(t.Context(), "tcp", gateway)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return
	}
	p := startProxy(t, "http", func(context.Context, string, string) (net.Conn, error) {
		c, s := net.Pipe()
		s.Close()
		return c, nil
	})
	cmd := exec.Command(os.Args[0], "-test.run=^TestProxyFromEnvironment$")
	cmd.Env = append(os.Environ(), "APNS_TEST_PROXY=1", "HTTPS_PROXY="+p.url(t, "jo:s3cret@").String(), "NO_PROXY=", "no_proxy=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	want := "CONNECT gateway.push.apple.com:2195 HTTP/1.1, Host gateway.push.apple.com:2195, Basic am86czNjcmV0"
	if seen := p.seen(); len(seen) != 1 || seen[0] != want {
		t.Errorf("the proxy got %q\nwant %q", seen, want)
	}
}
