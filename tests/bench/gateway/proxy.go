// A reverse proxy as one writes it with Go's standard library: `proxy PORT UPSTREAM [IDLE]`.
// IDLE: connections kept to the upstream, where the library's default is 2.
package main

import (
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
)

func main() {
	upstream, err := url.Parse(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(upstream)
	proxy.FlushInterval = -1 // server-sent events are passed on at once
	if len(os.Args) > 3 {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		if transport.MaxIdleConnsPerHost, err = strconv.Atoi(os.Args[3]); err != nil {
			log.Fatal(err)
		}
		proxy.Transport = transport
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], proxy))
}
