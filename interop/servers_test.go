package interop_test

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"go/build"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

var pushes = flag.Int("pushes", 1000, "the number of messages that TestServers pushes with Conn, and with Client, for each server and stream limit")

// An otherServer is a server of another author, alone or as a proxy before the server of
// apnstest.
type otherServer struct {
	name    string
	program string                 // empty: net/http, in the test process
	command func(s *site) []string // writes the configuration, and returns the arguments
	limits  []int                  // the stream limits to configure; 0: the server's default
	fixed   int                    // the stream limit that it always announces; 0: the configured one
	perConn int                    // requests after which it ends a connection with GOAWAY; 0: never
	answer  int                    // the status of all answers; 0: the server of apnstest answers
	keyless bool                   // push without a provider token
}

var anyLimit = []int{1, 2, 100, 0}

var otherServers = []otherServer{
	{name: "net-http", limits: anyLimit, answer: 200},
	{name: "node", program: "node", command: node, limits: anyLimit, answer: 200},
	{name: "nghttpd", program: "nghttpd", command: nghttpd("--echo-upload"), limits: anyLimit, answer: 200},
	// With padding, trailers, an answer before the payload, and no table for our header fields.
	{name: "nghttpd-odd", program: "nghttpd", command: nghttpd("--echo-upload", "-b", "200", "--trailer", "foo: bar", "--early-response", "-c", "0"),
		limits: anyLimit, answer: 200},
	{name: "nginx", program: "nginx", command: nginx("return 200;"), limits: anyLimit, perConn: 1000, answer: 200}, // 1,000 is its default
	{name: "nginx-goaway", program: "nginx", command: nginx("return 200;", "keepalive_requests 40;"), limits: anyLimit, perConn: 40, answer: 200},
	{name: "nginx-apnstest", program: "nginx", command: nginx(grpcPass), limits: anyLimit, perConn: 1000, keyless: true},
	{name: "haproxy", program: "haproxy", command: haproxy("http-request return status 200"), limits: anyLimit, answer: 200},
	{name: "haproxy-apnstest", program: "haproxy", command: haproxy("default_backend certificate"), limits: anyLimit, keyless: true},
	{name: "haproxy-apnstest-token", program: "haproxy", command: haproxy("default_backend token"), limits: anyLimit},
	{name: "lighttpd", program: "lighttpd", command: lighttpd(`url.rewrite-once = ("" => "/empty")`), limits: []int{0}, fixed: 8, answer: 200},
	{name: "lighttpd-404", program: "lighttpd", command: lighttpd(""), limits: []int{0}, fixed: 8, answer: 404, keyless: true},
	// The limit is the number of requests that h2o processes at a time; the others wait.
	{name: "h2o", program: "h2o", command: h2o(`mruby.handler: "Proc.new {|env| [200, {}, []]}"`), limits: anyLimit, fixed: 100, answer: 200},
	{name: "h2o-404", program: "h2o", command: h2o("file.dir: {dir}"), limits: anyLimit, fixed: 100, answer: 404, keyless: true},
}

func node(s *site) []string {
	return []string{"http2-server.js", s.dir, s.port, strconv.Itoa(s.limit)}
}

func nghttpd(options ...string) func(s *site) []string {
	return func(s *site) []string {
		args := append([]string{"-v", "-a", "127.0.0.1", "-d", s.dir}, options...)
		if s.limit > 0 {
			args = append(args, "-m", strconv.Itoa(s.limit))
		}
		return append(args, s.port, filepath.Join(s.dir, "server.key"), filepath.Join(s.dir, "server.pem"))
	}
}

// grpcPass makes nginx speak HTTP/2 to the server of apnstest. Nginx does so only for gRPC.
const grpcPass = `
	grpc_pass grpcs://backend;
	grpc_ssl_certificate {dir}/cert.pem;
	grpc_ssl_certificate_key {dir}/key.pem;
	grpc_ssl_trusted_certificate {dir}/ca.pem;
	grpc_ssl_verify on;
	grpc_ssl_name localhost;`

func nginx(location string, options ...string) func(s *site) []string {
	return func(s *site) []string {
		file := s.write("nginx.conf", `
daemon off;
master_process off;
pid {dir}/nginx.pid;
error_log stderr;
events { worker_connections 4096; }
http {
	log_format short '$connection $uri';
	access_log {dir}/log short;
	client_body_temp_path {dir};
	proxy_temp_path {dir};
	fastcgi_temp_path {dir};
	uwsgi_temp_path {dir};
	scgi_temp_path {dir};
	upstream backend { server {backend}; keepalive 1000; }
	server {
		listen {addr} ssl http2;
		ssl_certificate {dir}/server.pem;
		ssl_certificate_key {dir}/server.key;
		http2_max_concurrent_streams {limit};
		`+strings.Join(options, "\n")+`
		location / { `+location+` }
	}
}`)
		return []string{"-p", s.dir, "-e", "stderr", "-c", file}
	}
}

func haproxy(rule string) func(s *site) []string {
	return func(s *site) []string {
		file := s.write("haproxy.cfg", `
global
	nbthread 1 # with more, it may drop log lines
	log stdout format raw local0
	tune.h2.max-concurrent-streams {limit}
defaults
	mode http
	timeout client 1m
	timeout server 1m
	timeout connect 5s
frontend front
	bind {addr} ssl crt {dir}/server-both.pem alpn h2
	log global
	log-format "%cp %HP"
	`+rule+`
backend certificate
	server apnstest {backend} ssl alpn h2 ca-file {dir}/ca.pem verify required verifyhost localhost crt {dir}/both.pem
backend token
	server apnstest {backend} ssl alpn h2 ca-file {dir}/ca.pem verify required verifyhost localhost
backend plain
	retries 0
	timeout server 200ms
	server plain {backend}
`)
		return []string{"-db", "-f", file}
	}
}

func lighttpd(rule string) func(s *site) []string {
	return func(s *site) []string {
		s.write("empty", "")
		file := s.write("lighttpd.conf", `
server.modules = ("mod_rewrite", "mod_accesslog", "mod_openssl")
server.document-root = "{dir}"
server.bind = "127.0.0.1"
server.port = {port}
ssl.engine = "enable"
ssl.pemfile = "{dir}/server.pem"
ssl.privkey = "{dir}/server.key"
accesslog.filename = "{dir}/log"
accesslog.format = "%{remote}p %r"
`+rule+"\n")
		return []string{"-D", "-f", file}
	}
}

func h2o(handler string) func(s *site) []string {
	return func(s *site) []string {
		user := ""
		if os.Getuid() == 0 {
			user = "user: root" // otherwise it is nobody, who cannot read the files
		}
		file := s.write("h2o.conf", user+`
num-threads: 1
http2-max-concurrent-requests-per-connection: {limit}
access-log:
  path: {dir}/log
  format: "%{remote}p %U"
listen:
  host: 127.0.0.1
  port: {port}
  ssl:
    certificate-file: {dir}/server.pem
    key-file: {dir}/server.key
    ocsp-update-interval: 0
hosts:
  default:
    paths:
      /:
        `+handler+"\n")
		return []string{"-c", file}
	}
}

// A site has the settings with which a server runs.
type site struct {
	dir        string // has the files of writeFiles, and the server's log
	addr, port string
	limit      int    // the stream limit; 0: the server's default
	backend    string // the address of the server of apnstest
}

// write writes a file into the folder, and returns its path. It replaces the placeholders in
// the text. Without a limit it leaves out lines with {limit}.
func (s *site) write(name, text string) string {
	fill := strings.NewReplacer("{dir}", s.dir, "{addr}", s.addr, "{port}", s.port, "{limit}", strconv.Itoa(s.limit), "{backend}", s.backend)
	var b strings.Builder
	for line := range strings.Lines(text) {
		if s.limit > 0 || !strings.Contains(line, "{limit}") {
			fill.WriteString(&b, line)
		}
	}
	file := filepath.Join(s.dir, name)
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		panic(err)
	}
	return file
}

// start starts the server.
func (s *site) start(ctx context.Context, t *testing.T, program string, command func(s *site) []string) (p *process) {
	t.Helper()
	s.addr, p = startListening(ctx, t, func(addr, port string) *process {
		s.addr, s.port = addr, port
		return startLogged(ctx, t, filepath.Join(s.dir, "log"), program, command(s)...)
	})
	return p
}

// findProgram returns the path of a program, also of one that install.sh installed. It skips
// the test if there is none.
func findProgram(t testing.TB, name string) string {
	t.Helper()
	cache, _ := os.UserCacheDir()
	for _, dir := range []string{"", "/usr/sbin", filepath.Join(cache, "apns-interop", "bin"), filepath.Join(build.Default.GOPATH, "bin")} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	t.Skipf("SKIPPED: there is no %s", name)
	return ""
}

// Conn.WritePushMsg and Client.PushAll push to servers of other authors. Each message has one
// outcome, the right one, and is in the server's log once.
func TestServers(t *testing.T) {
	for _, f := range otherServers {
		t.Run(f.name, func(t *testing.T) {
			var program string
			if f.program != "" {
				program = findProgram(t, f.program)
			}
			for _, limit := range f.limits {
				name := "default limit"
				if limit > 0 {
					name = fmt.Sprintf("limit %d", limit)
				}
				t.Run(name, func(t *testing.T) { f.test(t, program, limit) })
			}
		})
	}
}

func (f *otherServer) test(t *testing.T, program string, limit int) {
	ctx, cancel := context.WithTimeout(t.Context(), timeout+time.Duration(*pushes)*10*time.Millisecond)
	defer cancel()
	ours := apnstest.NewServer(func(m *apns.Message) error {
		if isBad(m) {
			return apns.ReasonBadDeviceToken
		}
		return nil
	})
	defer ours.Close()
	dir, config := writeFiles(t, ours)
	if f.keyless {
		config.Key = nil
	}
	s := &site{dir: dir, limit: limit, backend: ours.HTTP2Addr}
	var requests func() []request // ends the server, and returns what it logged
	if program == "" {
		requests = s.serveNetHTTP(t)
	} else {
		server := s.start(ctx, t, program, f.command)
		defer func() {
			if server.stop(); t.Failed() {
				t.Logf("%s: %v, standard error: %s", server.name, server.err, &server.errs)
			}
		}()
		requests = func() []request { return s.requests(t, server, 2**pushes) }
	}

	if got, want := streamLimit(t, s.addr, config), cmp.Or(f.fixed, limit); want > 0 && got != want {
		t.Errorf("the server allows %d streams, want %d", got, want)
	}

	type way struct {
		name  string
		push  func(ctx context.Context, t *testing.T, addr string, config *apns.Config, messages []*apns.Message) (outcomes []error, dialed, resent int)
		spare int // how many connections there may be beyond the least: a Client has MaxConns, and dials some early
	}
	ways := []way{{"Conn", pushOverConns, 0}, {"Client", pushWithClient, 8}}
	conns := make([]int, len(ways))
	all := make(map[string]int) // the index in ways, by token
	for i, way := range ways {
		messages := make([]*apns.Message, *pushes)
		for n := range messages {
			m := &apns.Message{ID: uint32(n), Token: fmt.Sprintf("00%02x%060x", i, n), Payload: apns.AlertPayload("Grüße")}
			messages[n], all[m.Token] = m, i
		}
		began := time.Now()
		outcomes, dialed, resent := way.push(ctx, t, s.addr, config, messages)
		t.Logf("%s: %d connections, %d messages resent, %v", way.name, dialed, resent, time.Since(began).Round(time.Millisecond))
		var wrong []string
		for n, err := range outcomes {
			if !f.isRight(messages[n], err) {
				wrong = append(wrong, fmt.Sprintf("message %d: %v", n, err))
			}
		}
		if len(wrong) > 0 {
			t.Errorf("%s: %d of %d messages have a wrong outcome: %q", way.name, len(wrong), len(messages), wrong[:min(3, len(wrong))])
		}
		least := 1
		if f.perConn > 0 {
			least = (*pushes + f.perConn - 1) / f.perConn
		} else if resent > 0 {
			t.Errorf("%s: %d messages were resent, want none without a GOAWAY", way.name, resent)
		}
		if most := least + way.spare; dialed < least || dialed > most {
			t.Errorf("%s: %d connections, want %d to %d", way.name, dialed, least, most)
		}
		conns[i] = dialed
	}

	seen := make(map[string]int)
	logged := make([]map[string]bool, len(ways)) // the connections in the log, by way
	for i := range logged {
		logged[i] = make(map[string]bool)
	}
	for _, r := range requests() {
		seen[r.token]++
		logged[all[r.token]][r.conn] = true
	}
	checkOnce(t, "the server", seen, all)
	for i, way := range ways {
		if n := len(logged[i]); n > conns[i] || i == 0 && n < conns[i] {
			t.Errorf("%s: the server logged %d connections, want %d", way.name, n, conns[i])
		}
	}
	if f.answer == 0 {
		clear(seen)
		for _, r := range ours.Records() {
			seen[r.Message.Token]++
		}
		checkOnce(t, "apnstest", seen, all)
	}
}

// streamLimit returns the stream limit in the server's first frame, or 0 if it has none.
func streamLimit(t *testing.T, addr string, config *apns.Config) int {
	t.Helper()
	tlsConfig := config.TLS.Clone()
	tlsConfig.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", addr, tlsConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(timeout))
	io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	frame := make([]byte, 9)
	io.ReadFull(conn, frame)
	settings := make([]byte, frame[2])
	if _, err := io.ReadFull(conn, settings); err != nil || frame[3] != 4 {
		t.Fatalf("got %v and the frame %x, want SETTINGS", err, frame)
	}
	for ; len(settings) >= 6; settings = settings[6:] {
		if settings[1] == 3 {
			return int(binary.BigEndian.Uint32(settings[2:]))
		}
	}
	return 0
}

// checkOnce checks that all tokens were seen, and each of them once.
func checkOnce(t *testing.T, who string, seen, all map[string]int) {
	t.Helper()
	missing, more := 0, 0
	for token := range all {
		switch seen[token] {
		case 0:
			missing++
		case 1:
		default:
			more++
		}
	}
	if missing > 0 || more > 0 || len(seen) > len(all) {
		t.Errorf("%s has seen %d different messages, %d of them more than once, want %d once", who, len(seen), more, len(all))
	}
}

// isBad reports whether the server of apnstest rejects the message.
func isBad(m *apns.Message) bool { return strings.HasSuffix(m.Token, "7") }

// isRight reports whether err is the expected outcome of the message.
func (f *otherServer) isRight(m *apns.Message, err error) bool {
	status, reason := f.answer, apns.Reason("")
	if status == 0 && isBad(m) {
		status, reason = 400, apns.ReasonBadDeviceToken
	}
	if status == 0 || status == 200 {
		return err == nil
	}
	pushErr, ok := errors.AsType[*apns.PushError](err)
	return ok && pushErr.ID == m.ID && pushErr.HTTPStatus == status && pushErr.Reason == reason &&
		!errors.Is(err, apns.ErrNotSent) && !errors.Is(err, apns.ErrInDoubt)
}

// pushOverConns pushes messages from 300 goroutines over one Conn. After a GOAWAY it continues
// over another. It resends the messages that were not sent.
func pushOverConns(ctx context.Context, t *testing.T, addr string, config *apns.Config, messages []*apns.Message) (outcomes []error, dialed, resent int) {
	var mu sync.Mutex // protects following
	var conn *apns.Conn
	var ending sync.WaitGroup
	shutdown := func(conn *apns.Conn) {
		if err := conn.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	}
	current := func() (*apns.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		if conn != nil && conn.CheckForError() != nil {
			old := conn
			ending.Go(func() { shutdown(old) })
			conn = nil
		}
		var err error
		if conn == nil {
			dialed++
			conn, err = apns.Dial(ctx, addr, config)
		}
		return conn, err
	}

	outcomes = make([]error, len(messages))
	var next, resends atomic.Int32
	var pushing sync.WaitGroup
	for range 300 {
		pushing.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(messages) {
					return
				}
				for range messages { // there are fewer GOAWAYs than messages
					conn, err := current()
					if err == nil {
						err = conn.WritePushMsg(ctx, messages[i])
					}
					outcomes[i] = err
					if !errors.Is(err, apns.ErrNotSent) || ctx.Err() != nil {
						break
					}
					resends.Add(1)
				}
			}
		})
	}
	pushing.Wait()
	ending.Wait()
	if conn != nil {
		shutdown(conn)
	}
	return outcomes, dialed, int(resends.Load())
}

// pushWithClient pushes messages with Client.PushAll.
func pushWithClient(ctx context.Context, t *testing.T, addr string, config *apns.Config, messages []*apns.Message) (outcomes []error, dialed, resent int) {
	client := &apns.Client{Addr: addr, Config: config}
	defer client.Close()
	outcomes = make([]error, len(messages))
	waiting := make(map[*apns.Message]int)
	for i, m := range messages {
		outcomes[i] = errors.New("no outcome")
		waiting[m] = i
	}
	for r := range client.PushAll(ctx, slices.Values(messages)) {
		i, ok := waiting[r.Message]
		if !ok {
			t.Errorf("message %s has a second outcome: %v", r.Message.Token, r.Err)
			continue
		}
		delete(waiting, r.Message)
		outcomes[i] = r.Err
	}
	stats := client.Stats()
	if err := client.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	return outcomes, int(stats.Connected), int(stats.Resent)
}

// A request is a request in a server's log.
type request struct{ conn, token string }

// logLine matches a line about a request, with a number for the connection and the path. The
// log of nghttpd has the number in brackets, and other lines as well.
var logLine = regexp.MustCompile(`^(?:\[id=)?(\d+)\b.*/3/device/([0-9a-f]+)\b`)

// requests ends the server, and returns the requests in its log. Before that it waits up to a
// second until the log has the expected number of them: the server may write to it after it
// answers.
func (s *site) requests(t *testing.T, server *process, expected int) []request {
	read := func() (requests []request) {
		b, err := os.ReadFile(filepath.Join(s.dir, "log"))
		if err != nil {
			t.Error(err)
		}
		for line := range strings.Lines(string(b)) {
			if !strings.Contains(line, "/3/device/") { // faster than the regular expression
				continue
			}
			if part := logLine.FindStringSubmatch(line); part != nil {
				requests = append(requests, request{part[1], part[2]})
			}
		}
		return requests
	}
	for range 10 {
		if len(read()) >= expected {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	server.stop()
	return read()
}

// serveNetHTTP starts a server with net/http. It returns a function that ends the server and
// returns the requests.
func (s *site) serveNetHTTP(t *testing.T) func() []request {
	var mu sync.Mutex // protects following
	var requests []request
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		mu.Lock()
		defer mu.Unlock()
		requests = append(requests, request{r.RemoteAddr, strings.TrimPrefix(r.URL.Path, "/3/device/")})
	}))
	cert, err := tls.LoadX509KeyPair(filepath.Join(s.dir, "server.pem"), filepath.Join(s.dir, "server.key"))
	if err != nil {
		t.Fatal(err)
	}
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	server.EnableHTTP2 = true
	server.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: s.limit}
	server.StartTLS()
	t.Cleanup(server.Close)
	s.addr = server.Listener.Addr().String()
	return func() []request {
		server.Close()
		return requests
	}
}

// answering starts a server on a free address. The server sends answer to each request, and
// closes the connection.
func answering(t *testing.T, answer string) (addr string, requests *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	requests = new(atomic.Int32)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if n, _ := conn.Read(make([]byte, 16<<10)); n > 0 {
				requests.Add(1)
			}
			io.WriteString(conn, answer)
			conn.Close()
		}
	}()
	return l.Addr().String(), requests
}

var (
	behindNginx   = nginx("if ($uri ~ /00) { return 200; } proxy_pass http://backend; proxy_read_timeout 200ms;")
	behindHAProxy = haproxy("http-request return status 200 if { path_beg /3/device/00 }\n\tdefault_backend plain")
)

// If the server behind a proxy does not answer, the proxy does, with its own status and HTML.
// The server may have processed the message, so the message is in doubt.
func TestGatewayErrors(t *testing.T) {
	closes, _ := answering(t, "")
	garbage, _ := answering(t, "garbage\r\n\r\n")
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts no connection
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, test := range []struct {
		program string
		command func(s *site) []string
		name    string
		backend string
		status  int
		body    string // a part of the body
	}{
		{"nginx", behindNginx, "is not there", freeAddr(t), 502, "502 Bad Gateway"},
		{"nginx", behindNginx, "closes", closes, 502, "502 Bad Gateway"},
		{"nginx", behindNginx, "is silent", silent.Addr().String(), 504, "504 Gateway Time-out"},
		{"haproxy", behindHAProxy, "is not there", freeAddr(t), 503, "503 Service Unavailable"},
		{"haproxy", behindHAProxy, "says garbage", garbage, 502, "502 Bad Gateway"},
		{"haproxy", behindHAProxy, "is silent", silent.Addr().String(), 504, "504 Gateway Time-out"},
	} {
		t.Run(test.program+" before one that "+test.name, func(t *testing.T) {
			program := findProgram(t, test.program)
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			dir, config := newFiles(t)
			s := &site{dir: dir, backend: test.backend}
			server := s.start(ctx, t, program, test.command)
			conn := dial(ctx, t, s.addr, config)
			client := &apns.Client{Addr: s.addr, Config: config}
			defer client.Close()
			good := &apns.Message{Token: deviceToken("00"), Payload: apns.AlertPayload("Hello")}
			for _, way := range []struct {
				name, prefix string
				push         func(ctx context.Context, m *apns.Message) error
			}{
				{"Conn", "c0", conn.WritePushMsg},
				{"Client", "c1", func(ctx context.Context, m *apns.Message) error { _, err := client.Push(ctx, m); return err }},
			} {
				ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
				defer cancel()
				err := way.push(ctx, &apns.Message{Token: deviceToken(way.prefix), Payload: good.Payload})
				pushErr, ok := errors.AsType[*apns.PushError](err)
				if !errors.Is(err, apns.ErrInDoubt) || errors.Is(err, apns.ErrNotSent) || ok && pushErr.Rejected() {
					t.Errorf("%s: got %v, want it in doubt", way.name, err)
				} else if text := err.Error(); strings.Count(text, strconv.Itoa(test.status)) < 2 || !strings.Contains(text, test.body) {
					t.Errorf("%s: got %q, want it to have the status %d, and of the body %q", way.name, text, test.status, test.body)
				}
				if err := way.push(ctx, good); err != nil {
					t.Errorf("%s: the next message: got %v, want it accepted", way.name, err)
				}
			}
			if err := conn.CheckForError(); err != nil {
				t.Errorf("the connection has ended: %v", err)
			}
			got := make(map[string]int)
			for _, r := range s.requests(t, server, 4) {
				got[r.token]++
			}
			want := map[string]int{deviceToken("00"): 2, deviceToken("c0"): 1, deviceToken("c1"): 1}
			if !maps.Equal(got, want) {
				t.Errorf("the server has seen %v, want %v", got, want)
			}
		})
	}
}

// HAProxy 2.6 sends REFUSED_STREAM if the server behind it receives a message and closes the
// connection without an answer. REFUSED_STREAM promises that the message was not processed.
// Here that may be false, and a client cannot know. Other versions may leave the message in
// doubt. See https://github.com/haproxy/haproxy/issues/3414.
func TestHAProxyRefuses(t *testing.T) {
	program := findProgram(t, "haproxy")
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	dir, config := newFiles(t)
	backend, requests := answering(t, "")
	s := &site{dir: dir, backend: backend}
	s.start(ctx, t, program, behindHAProxy)
	conn := dial(ctx, t, s.addr, config)
	err := conn.WritePushMsg(ctx, &apns.Message{Token: deviceToken("c0"), Payload: apns.AlertPayload("Hello")})
	if errors.Is(err, apns.ErrNotSent) == errors.Is(err, apns.ErrInDoubt) {
		t.Errorf("got %v, want not sent or in doubt", err)
	}
	if n := requests.Load(); n != 1 {
		t.Errorf("the server behind it has seen %d requests, want 1", n)
	}
	if err := conn.CheckForError(); err != nil {
		t.Errorf("the connection has ended: %v", err)
	}
}
