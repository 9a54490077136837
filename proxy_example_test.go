package apns_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// The proxy is the one that the environment names, in HTTPS_PROXY.
func ExampleProxyDialContext() {
	key, err := apns.LoadAuthKey("AuthKey_ABC123DEFG.p8", "ABC123DEFG", "DEF123GHIJ")
	if err != nil {
		log.Fatal(err)
	}
	client := &apns.Client{Config: &apns.Config{
		Key:         key,
		BundleID:    "com.example.app",
		DialContext: apns.ProxyDialContext(http.ProxyFromEnvironment, nil),
	}}
	defer client.Close()
}

// Any other kind of proxy takes a DialContext of one's own. This one is for a
// SOCKS proxy without authentication, and shows what there is to do; a program
// would rather use the package golang.org/x/net/proxy:
//
//	dialer, err := proxy.SOCKS5("tcp", "localhost:1080", nil, nil)
//	config.DialContext = dialer.(proxy.ContextDialer).DialContext
func ExampleProxyDialContext_socks() {
	server := apnstest.NewServer(nil)
	defer server.Close()
	socks := startSocks(server.Config().DialContext)
	defer socks.Close()

	dialSocks := func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, portText, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		port, err := strconv.ParseUint(portText, 10, 16)
		if err != nil || len(host) > 255 {
			return nil, fmt.Errorf("bad address %q", addr)
		}
		conn, err := new(net.Dialer).DialContext(ctx, network, socks.Addr().String())
		if err != nil {
			return nil, err
		}
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		request := []byte{5, 1, 0} // version 5; one method of authentication: none
		request = append(request, 5, 1, 0, 3, byte(len(host)))
		request = append(request, host...)
		request = binary.BigEndian.AppendUint16(request, uint16(port))
		_, err = conn.Write(request)
		answer := make([]byte, 2+10) // the method; the result and an IPv4 address
		if err == nil {
			_, err = io.ReadFull(conn, answer)
		}
		if err == nil && !bytes.HasPrefix(answer, []byte{5, 0, 5, 0, 0, 1}) {
			err = fmt.Errorf("the SOCKS proxy answered % x", answer)
		}
		if !stop() {
			err = ctx.Err()
		}
		if err != nil {
			conn.Close()
			return nil, err
		}
		return conn, nil
	}

	ctx := context.Background()
	config := server.Config()
	config.DialContext = dialSocks
	conn, err := apns.Dial(ctx, "gateway.example.com:2195", config)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	err = conn.WritePushMsg(ctx, &apns.Message{ID: 1, Token: "c0ffee", Payload: apns.AlertPayload("Hello")})
	if err != nil {
		log.Fatal(err)
	}
	if err := conn.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("accepted")
	// Output: accepted
}

// startSocks starts a SOCKS proxy for one connection, of one client that makes
// no mistakes.
func startSocks(next dialer) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		client, err := l.Accept()
		if err != nil {
			return
		}
		defer client.Close()
		b := make([]byte, 3+5)
		io.ReadFull(client, b)
		addr := make([]byte, int(b[7])+2)
		io.ReadFull(client, addr)
		host, port := addr[:b[7]], binary.BigEndian.Uint16(addr[b[7]:])
		server, err := next(context.Background(), "tcp", fmt.Sprintf("%s:%d", host, port))
		if err != nil {
			log.Print(err)
			return
		}
		defer server.Close()
		client.Write([]byte{5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		go func() {
			io.Copy(server, client)
			server.Close()
		}()
		io.Copy(client, server)
	}()
	return l
}
