// Package interop_test tests clients of other authors against the server of apnstest, and
// package apns against servers of other authors. The programs come from Debian, npm and the
// Go module proxy:
//
//	interop/install.sh
//	apt-get install nodejs npm
//	npm install --no-package-lock --prefix interop
//	(cd interop/sideshow && go mod download && go test .)
//	go test -v ./interop
//	go test -v ./interop -run TestServers -pushes 10000
//	go test ./interop -run '^$' -bench Page -benchtime 50000x
//
// A test is skipped if its program is not installed.
package interop_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

func sameJSON(b []byte, want string) bool {
	var x, y any
	return json.Unmarshal(b, &x) == nil && json.Unmarshal([]byte(want), &y) == nil && reflect.DeepEqual(x, y)
}

func TestBinaryClients(t *testing.T) {
	for _, client := range []struct {
		module   string
		priority apns.Priority // 0 with command 1
	}{
		{"apn", apns.PriorityPowerSaving}, // 1.7.8, command 2
		{"apnagent", 0},                   // 1.1.3, command 1
	} {
		t.Run(client.module, func(t *testing.T) {
			node := needNode(t, client.module)
			var tokens []string
			for _, first := range []string{"00", "01", "bad0", "0a", "ff"} {
				tokens = append(tokens, first+strings.Repeat("0c", 32-len(first)/2))
			}
			bad := tokens[2]

			server := apnstest.NewServer(func(m *apns.Message) error {
				if m.Token == bad {
					return apns.StatusInvalidToken
				}
				return nil
			})
			defer server.Close()
			dead := apns.Feedback{Token: tokens[3], DeadAt: time.Unix(1700000000, 0)}
			server.AddFeedback(dead)
			dir := t.TempDir()
			certs := server.Certificates()
			for name, b := range map[string][]byte{"cert.pem": certs.ClientCert, "key.pem": certs.ClientKey, "ca.pem": certs.CA} {
				if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, pushPort, _ := net.SplitHostPort(server.PushAddr)
			_, feedbackPort, _ := net.SplitHostPort(server.FeedbackAddr)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, node, append([]string{client.module + ".js", dir, pushPort, feedbackPort}, tokens...)...)
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex // protects following
			said := make(map[string]bool)
			var reading sync.WaitGroup
			reading.Go(func() {
				for lines := bufio.NewScanner(out); lines.Scan(); {
					mu.Lock()
					said[lines.Text()] = true
					mu.Unlock()
					t.Log("client:", lines.Text())
				}
			})
			defer func() {
				cmd.Process.Kill()
				reading.Wait()
				cmd.Wait()
			}()

			// Over another connection, the client resends the messages after the rejected
			// one.
			want := []string{"rejected 8 " + bad, "dead " + tokens[3] + " 1700000000"}
			good := slices.DeleteFunc(slices.Clone(tokens), func(s string) bool { return s == bad })
			for {
				mu.Lock()
				heard := said[want[0]] && said[want[1]]
				mu.Unlock()
				accepted := make(map[string]int)
				for _, m := range server.Messages(apnstest.Accepted) {
					accepted[m.Token]++
				}
				if heard && len(accepted) == len(good) {
					break
				}
				if ctx.Err() != nil {
					t.Fatalf("the client said %v, the server accepted %v; want %q and all of %v", said, accepted, want, good)
				}
				time.Sleep(10 * time.Millisecond)
			}
			for _, m := range server.Messages(apnstest.Accepted) {
				if !slices.Contains(good, m.Token) || m.Priority != client.priority || !m.Expiry.After(time.Now()) || !sameJSON(m.Payload, `{"aps":{"alert":"Grüße","badge":1}}`) {
					t.Errorf("server accepted %+v with payload %s", m, m.Payload)
				}
			}
			if rejected := server.Messages(apnstest.Rejected); len(rejected) != 1 || rejected[0].Token != bad {
				t.Errorf("server rejected %v, want %s", rejected, bad)
			}
		})
	}
}
