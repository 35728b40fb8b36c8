# Short names for what .ci/run does; the commands live there.
CI := bash .ci/run
.DEFAULT_GOAL := build
.PHONY: build image test race lint interop devcerts guide fuzz cover soak bench-rotation bench-audit bench-ingest bench-ca bench-test demo compose ci hooks clean

build: ## the binary, static
	CGO_ENABLED=0 go build -trimpath -o artstore-pki ./cmd/artstore-pki

image: ## what compose/compose.yaml runs: that binary and nothing else
	$(CI) image

test: ## what the README says
	$(CI) test

race: ## with the race detector; prints and checks coverage
	$(CI) race

lint: ## gofmt, vet, golangci-lint, shellcheck
	$(CI) format vet lint shellcheck

interop: ## the step CLI against artstore-pki serve
	$(CI) interop

devcerts: ## scripts/gen-dev-certs.sh, judged by openssl and curl
	$(CI) devcerts

guide: ## what docs/mtls-guide.md says, to nginx, PostgreSQL and Python
	$(CI) guide

fuzz: ## every target, a minute each
	FUZZTIME=1m $(CI) fuzz

cover: ## coverage as a page: coverage.html
	go test -coverprofile=coverage.out ./... && go tool cover -html=coverage.out -o coverage.html

soak: ## an hour of the demo with short certificates, ten minutes of renewals by step and smallstep's library, 200 rounds of kills of the authority and of ingest, the whole crash matrix of ingest, 5 000 services that wait for changes, a root rotated under 200 services and 50 000 requests, 200 services that leave a stolen intermediate, 200 identities in one agent, the dashboard over a million certificates, 50 rotations of real programs behind agent and proxy, and five minutes of each fuzz target
	ARTSTORE_CA_KILLS=200 go test ./ca -run TestKill -count 1 -timeout 60m -v
	ARTSTORE_CRASH_MATRIX=long $(CI) crash
	ARTSTORE_INGEST_KILLS=200 go test ./cmd/artstore-pki -run TestIngestSurvivesKill -count 1 -timeout 30m -v
	RENEWALS=600 $(CI) interop
	ARTSTORE_WATCHERS=5000 go test ./cmd/artstore-pki -run TestServeHoldsWatchers -count 1 -timeout 30m -v
	ARTSTORE_FLEET=200 go test ./rotation/enroll -run TestRealFleet -parallel 1 -count 1 -timeout 30m -v
	ARTSTORE_FLEET=200 go test ./cmd/artstore-pki -run TestServeLeavesAStolenIntermediate -count 1 -timeout 30m -v
	ARTSTORE_AGENT_FLEET=200 go test ./cmd/artstore-pki -run TestAgentFleet -count 1 -timeout 30m -v
	ARTSTORE_DASHBOARD_SIZE=1000000 go test ./ca/dashboard -run AtSize -count 1 -timeout 60m -v
	ARTSTORE_PROXY_ROTATIONS=50 go test ./rotation/proxy -run 'TestRotations|TestUploader' -count 1 -timeout 30m -v
	ARTSTORE_AGENT_ROTATIONS=50 $(CI) agent
	ARTSTORE_FLOOD=1 go test ./cmd/artstore-pki -run TestServeUnderFlood -count 1 -timeout 30m -v
	DEMO_DURATION=1h FUZZTIME=5m $(CI) demo fuzz

bench-rotation: ## handshakes and rotations of ours beside those of others, as ratios; six minutes
	cd bench && go run ./rotation

bench-test: ## what the comparisons promise, without the clock
	$(CI) bench

bench-audit: ## the audit beside the parse-only walker, openssl, and whom the Go proxy serves
	cd bench && go run ./audit

bench-ingest: ## uploads beside curl and bare crypto/tls, token caches in an outage and a rotation
	cd bench && go run ./ingest

bench-ca: ## the authority beside step-ca, which it builds; lists, revocations, strangers
	$(CI) bench_ca

demo: ## four minutes of it, as a new user sees it
	go run ./cmd/artstore-pki demo --duration 4m

compose: ## the stack of compose/ in Docker, two rotations long
	$(CI) compose

ci: ## everything
	$(CI)

hooks: ## gofmt, vet and internal/arch before each commit, by git's core.hooksPath
	git config core.hooksPath scripts/hooks

clean:
	rm -rf artstore-pki dist coverage.out coverage.html
