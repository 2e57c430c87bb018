// A reverse proxy in front of the benchmark's S3 server and Glue: counts what arrives and delays each answer.
//
//	proxy SOCKET GLUE    listens on a free port of 127.0.0.1, prints it, and forwards to the unix socket what is for S3
//	                     and to the host:port what is for Glue, counted as bucket "glue"
//
// GET /__counts__ answers {"bucket": {"GET": 1, ...}}; POST /__counts__?ms=25 sets the delay and starts from zero.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

var (
	lock   sync.Mutex
	counts = map[string]map[string]int{}
	delay  time.Duration
)

// kind names a request by what S3 charges and does for it, not only by its verb.
func kind(r *http.Request, key string) string {
	query := r.URL.Query()
	switch {
	case r.Method == "GET" && key == "":
		return "LIST"
	case r.Method == "PUT" && r.Header.Get("X-Amz-Copy-Source") != "":
		return "COPY"
	case r.Method == "PUT" && query.Has("partNumber"):
		return "PUT part"
	case r.Method == "POST" && query.Has("delete"):
		return "POST delete"
	case r.Method == "POST" && query.Has("uploads"):
		return "POST initiate"
	case r.Method == "POST" && query.Has("uploadId"):
		return "POST complete"
	case r.Method == "DELETE" && query.Has("uploadId"):
		return "DELETE upload"
	}
	return r.Method
}

func isForGlue(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("X-Amz-Target"), "AWSGlue.")
}

func count(r *http.Request) time.Duration {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	name := kind(r, key)
	if isForGlue(r) {
		bucket, name = "glue", strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "AWSGlue.")
	}
	lock.Lock()
	defer lock.Unlock()
	if counts[bucket] == nil {
		counts[bucket] = map[string]int{}
	}
	counts[bucket][name]++
	return delay
}

func control(w http.ResponseWriter, r *http.Request) {
	lock.Lock()
	defer lock.Unlock()
	if r.Method == "POST" {
		ms, err := strconv.Atoi(r.URL.Query().Get("ms"))
		if err != nil {
			http.Error(w, "ms must be a whole number", http.StatusBadRequest)
			return
		}
		delay = time.Duration(ms) * time.Millisecond
		counts = map[string]map[string]int{}
	}
	json.NewEncoder(w).Encode(counts)
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: proxy SOCKET GLUE")
	}
	socket, glue := os.Args[1], os.Args[2]
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			// The signature covers the Host header: it stays the client's.
			r.Out.URL.Scheme, r.Out.URL.Host = "http", r.In.Host
			if isForGlue(r.In) {
				r.Out.URL.Host = glue
			}
			r.Out.Header.Del("Expect")
		},
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
				if address == glue {
					return (&net.Dialer{}).DialContext(ctx, "tcp", glue)
				}
				return (&net.Dialer{}).DialContext(ctx, "unix", socket)
			},
			MaxIdleConnsPerHost: 256,
			DisableCompression:  true,
		},
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/__counts__" {
			control(w, r)
			return
		}
		time.Sleep(count(r))
		proxy.ServeHTTP(w, r)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	log.Fatal(http.Serve(listener, handler))
}
