# prefdata:      docker build -t prefdata .
# and dpo, CPU:  docker build -t dpo --build-arg EXTRAS=[train] .
# for CUDA:      … --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130
#
# docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" prefdata prefdata validate rows.jsonl
ARG PYTHON=3.13
FROM python:${PYTHON}-slim AS build
ARG EXTRAS=""
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
COPY . .
RUN python -m venv /opt/prefdata \
 && /opt/prefdata/bin/pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" -c constraints.txt ".$EXTRAS"

FROM python:${PYTHON}-slim
RUN useradd --create-home --uid 1000 user
COPY --from=build /opt/prefdata /opt/prefdata
ENV PATH=/opt/prefdata/bin:$PATH HOME=/home/user
USER user
WORKDIR /work
CMD ["prefdata", "--help"]
