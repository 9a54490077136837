package apnstest_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// The client under test is that of package apns. Another one gets the address
// server.HTTP2Addr and what server.Certificates returns.
func ExampleScenarios() {
	for _, scenario := range apnstest.Scenarios()[:3] {
		server := scenario.NewServer()
		server.Start()
		client := &apns.Client{Addr: server.HTTP2Addr, Config: server.TokenConfig()}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		err := scenario.Run(ctx, server, func(ctx context.Context, m *apns.Message) error {
			_, err := client.Push(ctx, m)
			return err
		})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(scenario.Name, "passed: the client", scenario.Client)
		cancel()
		client.Close()
		server.Close()
	}
	// Output:
	// accepted passed: the client reports each message as accepted
	// rejected passed: the client reports them as rejected with the server's reason, and the others as accepted
	// reasons passed: the client reports each with its own status and reason, the unknown one included
}

// A pushFunc is what Scenario.Run calls. An adapter connects it to a server.
type (
	pushFunc func(context.Context, *apns.Message) error
	adapter  func(t *testing.T, s *apnstest.Server) pushFunc
)

const (
	http2Addr  = "api.push.apple.com:443"
	binaryAddr = "gateway.push.apple.com:2195"
)

// client returns an adapter of an apns.Client.
func client(addr string, config func(*apnstest.Server) *apns.Config, change func(*apns.Client)) adapter {
	return func(t *testing.T, s *apnstest.Server) pushFunc {
		c := &apns.Client{Addr: addr, Config: config(s)}
		if change != nil {
			change(c)
		}
		t.Cleanup(func() { c.Close() })
		return func(ctx context.Context, m *apns.Message) error {
			_, err := c.Push(ctx, m)
			return err
		}
	}
}

// connHTTP2 pushes over one Conn, and replaces it after an error that is not about the
// message.
func connHTTP2(t *testing.T, s *apnstest.Server) pushFunc {
	var mu sync.Mutex // protects conn
	var conn *apns.Conn
	t.Cleanup(func() {
		if conn != nil {
			conn.Close()
		}
	})
	return func(ctx context.Context, m *apns.Message) error {
		mu.Lock()
		c := conn
		if c == nil {
			var err error
			if c, err = apns.Dial(ctx, http2Addr, s.Config()); err != nil {
				mu.Unlock()
				return fmt.Errorf("%w: %w", apns.ErrNotSent, err)
			}
			conn = c
		}
		mu.Unlock()
		err := c.WritePushMsg(ctx, m)
		if _, rejected := errors.AsType[*apns.PushError](err); err == nil || rejected {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if conn == c {
			conn = nil
			t.Cleanup(func() { c.Close() }) // others may still use it
		}
		return err
	}
}

// connBinary pushes each message over a Conn of its own, whose Shutdown has the outcome.
func connBinary(t *testing.T, s *apnstest.Server) pushFunc {
	return func(ctx context.Context, m *apns.Message) error {
		c, err := apns.Dial(ctx, binaryAddr, s.Config())
		if err != nil {
			return fmt.Errorf("%w: %w", apns.ErrNotSent, err)
		}
		defer c.Close()
		if err := c.WritePushMsg(ctx, m); err != nil {
			return err
		}
		return c.Shutdown(ctx)
	}
}

// runScenario runs a scenario with an adapter, in memory or on loopback.
func runScenario(t *testing.T, scenario apnstest.Scenario, memory bool, open adapter) error {
	s := scenario.NewServer()
	s.InMemory = memory
	s.Start()
	t.Cleanup(s.Close)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return scenario.Run(ctx, s, open(t, s))
}

// Package apns passes all scenarios.
func TestScenarios(t *testing.T) {
	for name, test := range map[string]struct {
		open   adapter
		binary bool
	}{
		"Client, certificate":     {client(http2Addr, (*apnstest.Server).Config, nil), false},
		"Client, token":           {client(http2Addr, (*apnstest.Server).TokenConfig, nil), false},
		"Conn":                    {connHTTP2, false},
		"Client, binary protocol": {client(binaryAddr, (*apnstest.Server).Config, nil), true},
		"Conn, binary protocol":   {connBinary, true},
	} {
		for _, scenario := range apnstest.Scenarios() {
			if test.binary && !scenario.Binary {
				continue
			}
			t.Run(name+"/"+scenario.Name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					if err := runScenario(t, scenario, true, test.open); err != nil {
						t.Error(err)
					}
				})
				t.Run("loopback", func(t *testing.T) {
					t.Parallel()
					if err := runScenario(t, scenario, false, test.open); err != nil {
						t.Error(err)
					}
				})
			})
		}
	}
}

// The Client resends what was not processed, rather than report it as not sent.
func TestScenariosResent(t *testing.T) {
	for _, scenario := range apnstest.Scenarios() {
		synctest.Test(t, func(t *testing.T) {
			push := client(http2Addr, (*apnstest.Server).TokenConfig, nil)
			err := runScenario(t, scenario, true, func(t *testing.T, s *apnstest.Server) pushFunc {
				push := push(t, s)
				return func(ctx context.Context, m *apns.Message) error {
					err := push(ctx, m)
					if errors.Is(err, apns.ErrNotSent) {
						t.Errorf("message %d: %v", m.ID, err)
					}
					return err
				}
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// wrap returns an adapter of a Client whose pushes go through f.
func wrap(f func(push pushFunc, ctx context.Context, m *apns.Message) error) adapter {
	return func(t *testing.T, s *apnstest.Server) pushFunc {
		push := client(http2Addr, (*apnstest.Server).TokenConfig, nil)(t, s)
		return func(ctx context.Context, m *apns.Message) error { return f(push, ctx, m) }
	}
}

// wrongClients have a mistake each.
var wrongClients = map[string]struct {
	open adapter
	want string // the scenarios that fail, in alphabetical order
}{
	"says accepted": {
		wrap(func(push pushFunc, ctx context.Context, m *apns.Message) error {
			push(ctx, m)
			return nil
		}),
		"cut cut-accepted many reasons rejected reset unregistered",
	},
	"sends nothing": {
		wrap(func(push pushFunc, ctx context.Context, m *apns.Message) error { return nil }),
		"accepted cut cut-accepted goaway goaway-idle many no-stream one-stream reasons refused-stream rejected reset server-error shutdown too-many-requests unavailable unregistered",
	},
	"sends twice": {
		wrap(func(push pushFunc, ctx context.Context, m *apns.Message) error {
			push(ctx, m)
			return push(ctx, m)
		}),
		"accepted cut cut-accepted goaway goaway-idle many no-stream one-stream reasons refused-stream rejected reset server-error shutdown too-many-requests unavailable",
	},
	"resends what is in doubt": {
		client(http2Addr, (*apnstest.Server).TokenConfig, func(c *apns.Client) { c.InDoubt = apns.InDoubtResend }),
		"cut cut-accepted reset",
	},
	"says rejected of what is in doubt": {
		wrap(func(push pushFunc, ctx context.Context, m *apns.Message) error {
			err := push(ctx, m)
			if errors.Is(err, apns.ErrInDoubt) {
				err = &apns.PushError{HTTPStatus: 500, Reason: apns.ReasonInternalServerError}
			}
			return err
		}),
		"cut cut-accepted reset",
	},
	"says not sent of what is in doubt": {
		wrap(func(push pushFunc, ctx context.Context, m *apns.Message) error {
			err := push(ctx, m)
			if errors.Is(err, apns.ErrInDoubt) {
				err = apns.ErrNotSent
			}
			return err
		}),
		"cut cut-accepted reset",
	},
	"says not sent of what was accepted": {
		wrap(func(push pushFunc, ctx context.Context, m *apns.Message) error {
			if err := push(ctx, m); err != nil || m.ID != 3 {
				return err
			}
			return apns.ErrNotSent
		}),
		"accepted cut cut-accepted goaway many no-stream one-stream refused-stream rejected reset server-error shutdown too-many-requests unavailable",
	},
	"says rejected of what was accepted": {
		wrap(func(push pushFunc, ctx context.Context, m *apns.Message) error {
			if err := push(ctx, m); err != nil || m.ID != 2 {
				return err
			}
			return &apns.PushError{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests}
		}),
		"accepted goaway goaway-idle many no-stream one-stream reasons refused-stream server-error shutdown too-many-requests unavailable",
	},
	"gets the reason wrong": {
		wrap(func(push pushFunc, ctx context.Context, m *apns.Message) error {
			err := push(ctx, m)
			if e := pushErr(err); e != nil && e.Reason == "NewReason" {
				e.Reason = apns.ReasonBadDeviceToken
			}
			return err
		}),
		"reasons",
	},
	"gets the status wrong": {
		wrap(func(push pushFunc, ctx context.Context, m *apns.Message) error {
			err := push(ctx, m)
			if e := pushErr(err); e != nil && e.HTTPStatus != 410 {
				e.HTTPStatus = 410
			}
			return err
		}),
		"many reasons rejected",
	},
	"reads milliseconds as seconds": {
		wrap(func(push pushFunc, ctx context.Context, m *apns.Message) error {
			err := push(ctx, m)
			if e := pushErr(err); e != nil {
				e.DeadAt = time.Unix(e.DeadAt.UnixMilli(), 0)
			}
			return err
		}),
		"many unregistered",
	},
	"ignores Retry-After": {
		func(t *testing.T, s *apnstest.Server) pushFunc {
			open := client(http2Addr, (*apnstest.Server).TokenConfig, nil)
			push, other := open(t, s), open(t, s)
			return func(ctx context.Context, m *apns.Message) error {
				short, cancel := context.WithTimeout(ctx, time.Second/2)
				defer cancel()
				err := push(short, m) // which fails, since the Client would wait longer
				if e := pushErr(err); e != nil && e.Retryable() {
					return other(ctx, m)
				}
				return err
			}
		},
		"too-many-requests unavailable",
	},
	"mixes up the answers": {
		swapped(),
		"many reasons rejected",
	},
}

func pushErr(err error) *apns.PushError {
	e, _ := errors.AsType[*apns.PushError](err)
	return e
}

// A client with a mistake fails the scenarios that are about it, and no others.
func TestScenariosFail(t *testing.T) {
	for name, test := range wrongClients {
		t.Run(name, func(t *testing.T) {
			var failed []string
			for _, scenario := range apnstest.Scenarios() {
				synctest.Test(t, func(t *testing.T) {
					if err := runScenario(t, scenario, true, test.open); err != nil {
						failed = append(failed, scenario.Name)
						if !strings.Contains(err.Error(), "scenario "+scenario.Name+": ") || !strings.Contains(err.Error(), "message ") {
							t.Errorf("got the error %v, want one that names scenario and message", err)
						}
					}
				})
			}
			slices.Sort(failed)
			if got := strings.Join(failed, " "); got != test.want {
				t.Errorf("it failed %s\nwant %s", got, test.want)
			}
		})
	}
}

// swapped returns an adapter that reports the outcome of each message about the one before.
func swapped() adapter {
	return func(t *testing.T, s *apnstest.Server) pushFunc {
		push := client(http2Addr, (*apnstest.Server).TokenConfig, nil)(t, s)
		var mu sync.Mutex
		outcomes := make(map[uint32]chan error)
		outcome := func(id uint32) chan error {
			mu.Lock()
			defer mu.Unlock()
			if outcomes[id] == nil {
				outcomes[id] = make(chan error, 2)
			}
			return outcomes[id]
		}
		return func(ctx context.Context, m *apns.Message) error {
			err := push(ctx, m)
			outcome(m.ID - 1) <- err
			select {
			case err = <-outcome(m.ID):
			case <-time.After(time.Second): // it is the last of its step
			}
			return err
		}
	}
}

// A client that opens a connection for each message fails.
func TestScenariosConns(t *testing.T) {
	for _, scenario := range apnstest.Scenarios() {
		if scenario.Name != "one-stream" && scenario.Name != "no-stream" {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			err := runScenario(t, scenario, true, func(t *testing.T, s *apnstest.Server) pushFunc {
				return func(ctx context.Context, m *apns.Message) error {
					return client(http2Addr, (*apnstest.Server).Config, nil)(t, s)(ctx, m)
				}
			})
			if err == nil || !strings.Contains(err.Error(), "connections, expected at most 25") {
				t.Errorf("scenario %s: got %v, want too many connections", scenario.Name, err)
			}
		})
	}
}
