# The image that takes the place of registry:2's and registry:3's: one static program under the names that theirs has.
# See docs/drop-in.md.

FROM rust:1.95-alpine AS build
RUN apk add --no-cache build-base cmake perl
COPY . /src
WORKDIR /src
RUN cargo build --release --locked -p stopover
RUN mkdir -p /image/bin /image/var/lib/registry \
 && cp target/release/stopover /image/bin/stopover \
 && ln -s stopover /image/bin/registry \
 && ln -s bin/registry /image/entrypoint.sh

FROM scratch
COPY --from=build /image/ /
ENV PATH=/bin
EXPOSE 5000
VOLUME /var/lib/registry
STOPSIGNAL SIGTERM
ENTRYPOINT ["/bin/registry"]
CMD ["serve"]
