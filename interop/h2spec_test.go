package interop_test

import (
	"context"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/apns/apnstest"
)

// h2spec finds no error in the server of apnstest.
func TestH2spec(t *testing.T) {
	h2spec := findProgram(t, "h2spec")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	server := apnstest.NewServer(nil)
	defer server.Close()
	host, port, _ := net.SplitHostPort(server.HTTP2Addr)
	p := start(ctx, t, h2spec, "-S", "-t", "-k", "-h", host, "-p", port, "-P", "/3/device/"+deviceToken("00"), "-o", "1")
	const want = "146 tests, 146 passed, 0 skipped, 0 failed"
	summary := ""
	var failures []string
	for line := range p.lines {
		if strings.Contains(line, " tests, ") {
			summary = line
		}
		if len(failures) > 0 || strings.HasPrefix(line, "Failures:") {
			failures = append(failures, line)
		}
	}
	<-p.ended
	if summary != want {
		t.Errorf("got %q, want %q\n%s%s", summary, want, strings.Join(failures, "\n"), &p.errs)
	}
}

// h2specd finds no error in Conn. It passes a case if the client closes the connection, and
// h2specd-client always does so after a second. So this test also requires that the
// connection ended before that, except in the cases about frames on a closed stream, which a
// client may ignore.
func TestH2specd(t *testing.T) {
	h2specd := findProgram(t, "h2specd")
	goTool := findProgram(t, "go")
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	dir, _ := newFiles(t)
	client := filepath.Join(dir, "h2specd-client.exe")
	if out, err := exec.CommandContext(ctx, goTool, "build", "-o", client, "./h2specd-client").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	mayStay := map[string]bool{"5.1/5": true, "5.1/6": true, "5.1/7": true, "5.1/8": true, "5.1/9": true, "5.1/10": true, "6.1/2": true, "6.3/2": true}

	p := start(ctx, t, h2specd, "-S", "-t", "-v", "-c", filepath.Join(dir, "server.pem"), "-k", filepath.Join(dir, "server.key"),
		"-f", strconv.Itoa(freePorts(t, 57)), "-e", client+" "+filepath.Join(dir, "ca.pem"))
	section := regexp.MustCompile(`^ +([\d.]+)\. `)
	result := regexp.MustCompile(`^ +(✔|×) (\d+): (.*)`)
	const want = "57 tests, 57 passed, 0 skipped, 0 failed"
	var number, said string
	var shown []string // the output of h2specd for the case
	for line := range p.lines {
		line = strings.TrimPrefix(line, "\r")
		shown = append(shown, line)
		if part := section.FindStringSubmatch(line); part != nil {
			number = part[1]
		} else if s, ok := strings.CutPrefix(line, "client: "); ok {
			said = s
		} else if part := result.FindStringSubmatch(line); part != nil {
			name := number + "/" + part[2]
			if part[1] == "×" || !mayStay[name] && !strings.HasPrefix(said, "ended:") {
				t.Errorf("%s, %s: the client %s\n%s", name, part[3], said, strings.Join(shown, "\n"))
			}
			shown, said = nil, ""
		} else if strings.HasPrefix(line, "Failures:") {
			shown, result = nil, section // the failures were reported above
		} else if strings.Contains(line, " tests, ") {
			if line != want {
				t.Errorf("got %q, want %q", line, want)
			}
			return
		}
	}
	<-p.ended
	t.Errorf("h2specd ended early: %s%s", strings.Join(shown, "\n"), &p.errs)
}

// freePorts returns the first of n consecutive free ports.
func freePorts(t *testing.T, n int) int {
	t.Helper()
	for range 100 {
		first := 20_000 + rand.IntN(10_000)
		free := 0
		for ; free < n; free++ {
			l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(first+free)))
			if err != nil {
				break
			}
			defer l.Close()
		}
		if free == n {
			return first
		}
	}
	t.Fatalf("there are no %d ports in a row", n)
	return 0
}
