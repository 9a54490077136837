package apnstest

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A service is one of the server's listeners.
type service struct {
	ports    []int    // the well-known ones, as Apple's service has them
	names    []string // addresses that select the service, whatever service has their port
	addr     *string  // the field of Server that sets the address
	tls      *tls.Config
	serve    func(*conn)
	listener net.Listener // nil while connections are refused; protected by Server.mu
}

// listen opens the service's listener; the caller holds s.mu.
func (s *Server) listen(sv *service) error {
	if s.InMemory {
		*sv.addr = cmp.Or(*sv.addr, "localhost:"+strconv.Itoa(sv.ports[0]))
		sv.listener = newMemoryListener(*sv.addr, cmp.Or(s.BufferSize, 64<<10))
	} else {
		l, err := net.Listen("tcp", cmp.Or(*sv.addr, "127.0.0.1:0"))
		if err != nil {
			return err
		}
		sv.listener = l
		if addr := l.Addr().String(); addr != *sv.addr {
			*sv.addr = addr
		}
	}
	l := sv.listener
	s.running.Go(func() {
		for {
			raw, err := l.Accept()
			switch {
			case err == nil:
				s.serve(sv, raw)
			case errors.Is(err, net.ErrClosed):
				return
			default:
				time.Sleep(5 * time.Millisecond) // for example, too many files are open
			}
		}
	})
	return nil
}

// stopListening closes the listeners; the caller holds s.mu.
func (s *Server) stopListening() {
	for _, sv := range s.services {
		if sv.listener != nil {
			sv.listener.Close()
			sv.listener = nil
		}
	}
}

// serve starts a goroutine that serves a connection.
func (s *Server) serve(sv *service, raw net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		raw.Close()
		return
	}
	s.accepted++
	c := newConn(raw.(endpoint), sv.tls, s.accepted)
	s.conns[c] = struct{}{}
	s.running.Go(func() {
		defer func() {
			c.raw.Close()
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.conns, c)
		}()
		if c.tls.HandshakeContext(context.Background()) == nil {
			s.noteOpened(c, sv)
			sv.serve(c)
		}
	})
}

// dial is the DialContext of Config. It ignores a host name, and finds the service by
// the port.
func (s *Server) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	var ports []string // all that are known
	var to *service
	for _, sv := range s.services {
		_, own, _ := net.SplitHostPort(*sv.addr)
		known := []string{own}
		for _, p := range sv.ports {
			known = append(known, strconv.Itoa(p))
		}
		if slices.Contains(known, port) || slices.Contains(sv.names, addr) {
			to = sv // the last service has names
		}
		ports = append(ports, known...)
	}
	var l net.Listener
	var own string
	if to != nil {
		l, own = to.listener, *to.addr
	}
	s.mu.Unlock()
	switch {
	case to == nil:
		return nil, fmt.Errorf("apnstest: no service on the port of %s, there are: %s", addr, strings.Join(ports, ", "))
	case !s.InMemory:
		return new(net.Dialer).DialContext(ctx, network, own)
	case l == nil:
		return nil, connectionRefused(addr)
	}
	return l.(*memoryListener).dial(ctx, addr)
}

// connectionRefused returns the error of a dial that TCP would have refused.
func connectionRefused(addr string) error {
	return &net.OpError{Op: "dial", Net: "memory", Addr: memoryAddr(addr), Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}
