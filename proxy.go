package apns

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"example.com/apns/internal/secret"
)

// ProxyDialContext returns a DialContext for a [Config]. It connects through an HTTP proxy,
// with the CONNECT method.
//
// The function proxy chooses the proxy for a connection. It has the type of the Proxy field
// of an [http.Transport]: [http.ProxyFromEnvironment], for example, or the result of
// [http.ProxyURL]. It is called for each connection, with a request for https:// and the
// address. If the function or the URL that it returns is nil, the connection is direct. The
// URL's scheme is http or, for a proxy that is reached over TLS, https. A user name and
// password in the URL are sent to the proxy as basic authentication.
//
// The config says how to reach the proxy. Its DialContext opens the connection to the
// proxy, and direct connections. Its TLS is for a proxy with the scheme https. The other
// fields are ignored. Nil means the zero Config. It must not be the Config that is passed
// to [Dial]: the certificate in that must not be sent to the proxy.
//
// The proxy learns the name and port of the server. The traffic with the server is
// encrypted end to end. Many proxies allow connections only to port 443, and answer others
// with status 403.
//
// ProxyFromEnvironment reads the variables HTTPS_PROXY and NO_PROXY when the process first
// calls it. It never returns a proxy for localhost. For a SOCKS proxy, set another
// DialContext: see the example.
func ProxyDialContext(proxy func(*http.Request) (*url.URL, error), config *Config) func(ctx context.Context, network, addr string) (net.Conn, error) {
	if config == nil {
		config = new(Config)
	}
	// The fields are read here and not in the result: the result may become the
	// DialContext of the same Config.
	dial, tlsConfig := config.DialContext, config.TLS
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	if proxy == nil {
		return dial
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		u, err := proxy(newConnectRequest("https", addr).WithContext(ctx))
		if urlErr, ok := errors.AsType[*url.Error](err); ok && urlErr.Op == "parse" {
			// Its text has the URL, and so perhaps a password.
			return nil, errors.New("choosing a proxy: the proxy's URL cannot be parsed (it is not shown since it may have a password)")
		}
		if err != nil {
			return nil, fmt.Errorf("choosing a proxy: %w", err)
		}
		if u == nil {
			return dial(ctx, network, addr)
		}
		// Errors name the proxy without the user name: that may be a secret token.
		name := (&url.URL{Scheme: u.Scheme, Host: u.Host}).String()
		ports := map[string]string{"http": "80", "https": "443"}
		switch {
		case ports[u.Scheme] == "":
			return nil, fmt.Errorf("proxy %s: the scheme is %q, expected http or https: for another kind of proxy, set a DialContext of your own", name, u.Scheme)
		case u.Hostname() == "":
			return nil, fmt.Errorf("proxy %s: the URL has no host", name)
		}
		raw, err := dial(ctx, network, net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), ports[u.Scheme])))
		if err != nil {
			return nil, fmt.Errorf("proxy %s: %w", name, err)
		}
		interrupted := make(chan struct{})
		stop := context.AfterFunc(ctx, func() {
			defer close(interrupted)
			raw.Close()
		})
		conn, err := connect(ctx, raw, u, tlsConfig, addr)
		if !stop() {
			<-interrupted
			err = cmp.Or(err, ctx.Err())
		}
		if err != nil {
			raw.Close()
			return nil, fmt.Errorf("proxy %s: %w", name, err)
		}
		return conn, nil
	}
}

// maxProxyHeader is the largest size in bytes of the header of a proxy's answer.
const maxProxyHeader = 16 << 10

// connect tells the proxy at the other end of raw to connect to addr. The caller closes raw
// when ctx ends.
func connect(ctx context.Context, raw net.Conn, u *url.URL, tlsConfig *tls.Config, addr string) (net.Conn, error) {
	conn := raw
	if u.Scheme == "https" {
		c := new(tls.Config)
		if tlsConfig != nil {
			c = tlsConfig.Clone()
		}
		c.ServerName = cmp.Or(c.ServerName, u.Hostname())
		c.NextProtos = nil // connect speaks HTTP/1.1
		t := tls.Client(raw, c)
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("TLS handshake: %w", cmp.Or(ctx.Err(), err))
		}
		conn = &tlsProxyConn{t, raw}
	}

	req := newConnectRequest("", addr)
	var credentials []string
	if u.User != nil {
		password, _ := u.User.Password()
		user := base64.StdEncoding.EncodeToString([]byte(u.User.Username() + ":" + password))
		req.Header.Set("Proxy-Authorization", "Basic "+user)
		credentials = []string{u.User.Username(), password, user}
	}
	// With a malformed address, Write would send the request without it. WriteProxy
	// returns an error.
	if err := req.WriteProxy(conn); err != nil {
		return nil, fmt.Errorf("asking it to connect to %q: %w", addr, cmp.Or(ctx.Err(), err))
	}
	header, err := readProxyHeader(ctx, conn)
	if err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(io.MultiReader(bytes.NewReader(header), conn)), req)
	if err != nil {
		return nil, fmt.Errorf("its answer is not HTTP: %.200q", err)
	}
	if resp.StatusCode/100 == 2 {
		return conn, nil // there is no body, whatever the header says
	}
	// The body may never arrive, or never end.
	defer time.AfterFunc(lastWords, func() { raw.Close() }).Stop()
	return nil, responseError(resp, credentials)
}

// responseError returns the error for an answer that is not a success. The credentials are
// what the proxy was sent, if anything: they are left out where the answer repeats them.
func responseError(resp *http.Response, credentials []string) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
	text := fmt.Sprintf("answered %q", secret.Excerpt(strings.TrimSpace(resp.Status), 64, credentials...))
	// The first line of a text is worth quoting, that of an HTML page is not.
	line, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	if line = strings.TrimSpace(line); line != "" && len(line) <= 200 && line[0] != '<' {
		text += fmt.Sprintf(" and %q", secret.Excerpt(line, len(line), credentials...))
	}
	if resp.StatusCode == http.StatusProxyAuthRequired {
		if credentials != nil {
			text += ": it refused the credentials of its URL"
		} else {
			text += ": it wants credentials, and its URL has none"
		}
		var schemes []string
		for _, challenge := range resp.Header["Proxy-Authenticate"] {
			scheme, _, _ := strings.Cut(challenge, " ")
			schemes = append(schemes, scheme)
		}
		// Some proxies only accept NTLM, for example.
		if all := strings.Join(schemes, ", "); all != "" && !strings.Contains(strings.ToLower(all), "basic") {
			text += fmt.Sprintf("; what it wants is %.64q, and there is only basic authentication here", all)
		}
	}
	return errors.New(text)
}

// newConnectRequest returns a CONNECT request for addr, with only the fields that
// http.Request requires.
func newConnectRequest(scheme, addr string) *http.Request {
	return &http.Request{
		Method: http.MethodConnect,
		URL:    &url.URL{Scheme: scheme, Host: addr},
		Host:   addr,
		Header: make(http.Header),
	}
}

// readProxyHeader reads the proxy's answer up to the empty line. It reads one byte at a time,
// because the bytes after the empty line are from the server.
func readProxyHeader(ctx context.Context, r io.Reader) ([]byte, error) {
	var header []byte
	b := make([]byte, 1)
	for !bytes.HasSuffix(header, []byte("\n\r\n")) && !bytes.HasSuffix(header, []byte("\n\n")) {
		if len(header) == maxProxyHeader {
			return nil, fmt.Errorf("the header of its answer is longer than %d bytes", maxProxyHeader)
		}
		if _, err := io.ReadFull(r, b); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			err = cmp.Or(ctx.Err(), err)
			if len(header) == 0 {
				return nil, fmt.Errorf("no answer: %w", err)
			}
			return nil, fmt.Errorf("its answer breaks off after %d bytes, which begin with %.64q: %w", len(header), header, err)
		}
		header = append(header, b[0])
		// A server that is not an HTTP proxy may send a line and then wait.
		if b[0] == '\n' && !bytes.HasPrefix(header, []byte("HTTP/")) {
			return nil, fmt.Errorf("it does not speak HTTP, its first line is %.64q", header)
		}
	}
	return header, nil
}

// A tlsProxyConn is a connection through a proxy that is reached over TLS. Its Close does not
// wait 5 s for a proxy that does not read, as that of tls.Conn does.
type tlsProxyConn struct {
	*tls.Conn
	raw net.Conn
}

func (c *tlsProxyConn) Close() error {
	defer time.AfterFunc(lastWords, func() { c.raw.Close() }).Stop()
	return c.Conn.Close()
}
