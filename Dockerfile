# ovseg for processors, without torch: the built-in model and exported ones.
#
#     docker build -t ovseg .
#     docker run --rm --read-only --tmpfs /tmp -v "$PWD":/data ovseg segment photo.jpg --classes cat
#
# To write results into /data, add --user "$(id -u):$(id -g)".
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY recipes recipes
COPY ovseg_cli ovseg_cli
COPY ovseg ovseg
RUN pip install --no-cache-dir uv
RUN uv venv --python python3 /opt/ovseg
RUN uv pip install --python /opt/ovseg/bin/python --link-mode copy --compile-bytecode .

FROM python:3.12-slim
COPY --from=build /opt/ovseg /opt/ovseg
ENV PATH=/opt/ovseg/bin:$PATH
ENV OVSEG_CACHE=/tmp/ovseg
WORKDIR /data
USER 10001:10001
ENTRYPOINT ["ovseg"]
CMD ["--help"]
